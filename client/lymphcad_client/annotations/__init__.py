"""Nodes from the annotation objects of a study: structured reports and presentation states."""
