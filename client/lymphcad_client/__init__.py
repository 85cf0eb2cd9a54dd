"""Scoring by a server or in this process: one answer for each node, results out, and what a server is watched by."""

import os

# Read when gRPC is imported: what it writes of a failed handshake on standard error, a sentence of ours says.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
