# Two commands do everything on a Debian machine with Python 3.11+, its venv module and make:
#   make demo   sets up and runs the main job with embedded defaults
#   make test   sets up and passes the tests
# Each makes its own virtual environments in .venv and .venv-bare; nothing else on the machine is touched.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready-dev
DEMO   := $(VENV)/.ready-demo
BARE   := .venv-bare
OIDC   := tests/access/oidc
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
ARGS   ?=
MODULES ?=

# Everything that runs after installation is offline by construction; these keep the libraries from trying.
export HF_HUB_OFFLINE := 1
export TRANSFORMERS_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1

# Tests start stanch some hundred times: what was compiled once is kept, whatever the machine's own setting.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test nightly versions check docs bench mutate dist clean

demo: $(DEMO)
	$(BIN)/stanch demo $(ARGS)

test: $(STAMP) $(BARE)/.ready $(OIDC)/node_modules/.package-lock.json
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# What takes hours: the sizes that a run of the tests only tastes, and the drills, which write benchmarks/results.
nightly: $(STAMP) $(BARE)/.ready $(OIDC)/node_modules/.package-lock.json
	$(BIN)/python -m pytest -m nightly $(ARGS)
	STANCH_SPLITS=1000000 STANCH_KILLS=100 STANCH_SENSITIVITY_BATCHES=10000 STANCH_CONNECTIONS=10000 \
	  $(BIN)/python -m pytest tests/scan/test_stream.py tests/guard/test_splits.py tests/tune/test_processes.py \
	  tests/tune/test_sensitivity.py tests/ledger/test_crash.py tests/gateway/test_connections.py \
	  tests/gateway/test_closed.py $(ARGS)
	$(BIN)/python tools/fuzz.py --counts 10000
	$(BIN)/python benchmarks/bench_trace_innocents.py --size nightly
	for script in benchmarks/drill_*.py; do $(BIN)/python $$script || exit 1; done

# Installations of the wheel on each promised Python that is there: bare, at the lowest versions, at the newest.
versions: $(STAMP)
	$(BIN)/python tools/try_versions.py

check: $(STAMP)
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m "not nightly and not slow and not acceptance and not realweights" $(ARGS)

docs: $(STAMP)
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: $(STAMP)
	$(PIP) --editable '.[bench]'
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

# One of them: make bench-seal
bench-%: $(STAMP)
	$(PIP) --editable '.[bench]'
	$(BIN)/python benchmarks/bench_$*.py

# Changes one thing of a module at a time and sees whether a test fails: make mutate MODULES="crypto.floe crypto.shares"
mutate: $(STAMP)
	nice -n 19 $(BIN)/python tools/mutate.py $(MODULES)

# What is published: built from the last commit and signed, with the publisher's key: make dist KEY=publisher.pem
dist: $(STAMP)
	$(BIN)/python tools/build_dist.py dist --key $(KEY)

clean:
	rm -rf $(VENV) $(BARE) $(OIDC)/node_modules docs/_build

# A real OpenID provider for the tests of access; without npm they are skipped by name.
$(OIDC)/node_modules/.package-lock.json: $(OIDC)/package-lock.json
	if command -v npm >/dev/null; then npm ci --prefix $(OIDC) --no-audit --no-fund --ignore-scripts; fi

# torch comes first and exactly pinned, so that no other package can bring a build with gigabytes of GPU libraries.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "stanch needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(DEMO): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[demo]'
	$(BIN)/stanch tune fetch-model smollm2
	touch $@

$(STAMP): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[dev]'
	$(BIN)/stanch tune fetch-model smollm2
	touch $@

# The core alone, without any optional part: the tests ask it what it can do.
$(BARE)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BARE)
	$(BARE)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt --editable .
	touch $@
