"""Scorers, and the scoring of tables with them."""
