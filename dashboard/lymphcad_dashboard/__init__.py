"""The dashboard: a Streamlit page on which a person clicks a node and sees the answer."""
