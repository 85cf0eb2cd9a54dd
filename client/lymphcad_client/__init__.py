"""Scoring by a server or in this process: one answer for each node, results out, and what a server is watched by."""

import os

# Read when gRPC is imported: what it notes of each failed handshake on standard error, the sentence of ours says.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
