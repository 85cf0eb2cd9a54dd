"""Weights to a bundle: the graphs as ONNX, and ``bundle.json``."""
