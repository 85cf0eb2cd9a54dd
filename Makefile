# `make test` needs Python 3.10 to 3.12 and, for its system packages, apt-get (or what it names, installed by hand).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: test lint pytest system clean

test: system $(VENV)/.dev lint pytest

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# dcmcjpeg makes lossless JPEG files; without it that test skips, and CI fails.
system:
	@command -v dcmcjpeg >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get \
	  >/dev/null && apt-get update -qq && apt-get install -y -qq dcmtk >/dev/null; } \
	  || echo "install dcmtk to run every test"

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

pytest:
	$(BIN)/python -m pytest -q

clean:
	rm -rf $(VENV)
