"""Triton: complete model repositories, and the server that runs one on this machine."""
