"""``python -m lymphcad``."""

from lymphcad.cli import main

main()
