"""Cohort to weights: the networks, and the preprocessing that every stage executes."""
