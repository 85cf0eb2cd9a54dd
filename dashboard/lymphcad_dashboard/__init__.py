"""The dashboard: a Streamlit page on which a radiologist points at a node and reads its score."""
