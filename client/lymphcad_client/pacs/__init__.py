"""The PACS: DICOM objects sent, fetched and received."""
