"""A DICOM node that receives studies, scores the nodes that annotations in them mark, and stores the results."""
