"""What measures speed. Each module is a command: ``python -m benchmarks.serving``, ``python -m benchmarks.score``."""
