# Set-up is by stamp files in .venv: a second `make up` installs nothing. No root is needed.
#
#   make up      install what running needs, run topologies/rdn2cfg1.yaml
#   make test    lint, then all tests with the coverage gate
#   make differential  PROGRAMS random programs on our GIC and on QEMU's, for GICv3 and GICv4.0
#   make fuzz    FUZZ_INPUTS malformed frames for csa.h, under the sanitizers, and for the Python codec
#   make lint    ruff (rules and format), mypy --strict, import-linter
#   make bench   measure the workloads of `cosim bench`, write docs/performance.md
#   make bench-limits  what a hop between processes is made of, bare stars of them, what compiling would give
#   make bench-peers  measure HELICS, mosaik and SimPy beside them, write docs/performance.md
#   make image-check  build deploy/Containerfile with buildah on a base made here, run the main job in it (root)
#   make docs    build the documentation into docs/_build/html
#   make clean   remove what the above made, except runs/

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help up test differential fuzz lint bench bench-limits bench-peers image-check docs requirements clean

VENV ?= .venv
BENCH_VENV ?= $(VENV)-bench
BENCH_FLAGS ?=
BIN := $(VENV)/bin
TOPOLOGY ?= topologies/rdn2cfg1.yaml
UP_FLAGS ?=
PYTEST_FLAGS ?=

# The first interpreter that is new enough and can make virtual environments.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)

# A console script of another environment must not be found first, nor its packages.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help:
	@sed -n '3,13s/^# \{0,3\}//p' Makefile

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "cosim needs Python 3.11 or later with venv, and found none." >&2; \
		echo "Next: apt-get install python3 python3-venv, or make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; \
		exit 2; \
	fi
	$(PYTHON) -m venv $(VENV)

# install,FILE: pinned requirements with checked hashes, then the package itself from this directory.
define install
	$(BIN)/python -m pip install --quiet --require-hashes -r $(1)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	@touch $@
endef

$(VENV)/run.stamp: requirements/run.txt pyproject.toml | $(BIN)/python
	$(call install,requirements/run.txt)

# The extras `rtl` and `metrics` too: cocotb, with which the tests run RTL where Icarus is installed, and prometheus_client.
$(VENV)/dev.stamp: requirements/dev.txt requirements/rtl.txt requirements/metrics.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/rtl.txt
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/metrics.txt
	$(call install,requirements/dev.txt)

$(VENV)/docs.stamp: requirements/docs.txt pyproject.toml | $(BIN)/python
	$(call install,requirements/docs.txt)

up: $(VENV)/run.stamp
	@$(BIN)/cosim up $(TOPOLOGY) $(UP_FLAGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The gate: every branch of the pure core is taken by a test. Two processes; `make test JOBS=0` is one, as for a debugger.
JOBS ?= 2
test: lint
	HYPOTHESIS_PROFILE=ci $(BIN)/pytest -rs -n $(JOBS) --dist loadgroup --cov --cov-report=term-missing --cov-fail-under=100 $(PYTEST_FLAGS)

# Needs qemu-system-aarch64 (Debian package qemu-system-arm). Another SEED gives other programs.
PROGRAMS ?= 2000
SEED ?= 1
differential: $(VENV)/dev.stamp
	COSIM_DIFFERENTIAL=$(PROGRAMS) COSIM_TEST_SEED=$(SEED) $(BIN)/pytest -s -v tests/differential

FUZZ_INPUTS ?= 10000000
FUZZ_SEED ?= 1
fuzz: $(VENV)/dev.stamp
	@mkdir -p build
	$(CC) -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -Wall -Wextra -Werror -Icosim/attach \
		tests/external/csa_fuzz.c -o build/csa_fuzz -lzmq
	$(BIN)/python -m tests.external.fuzz_codec --seeds | build/csa_fuzz $(FUZZ_INPUTS) $(FUZZ_SEED)
	$(BIN)/python -m tests.external.fuzz_codec $(FUZZ_INPUTS) $(FUZZ_SEED)

bench: $(VENV)/run.stamp
	$(BIN)/python -m benchmarks.report bench $(BENCH_FLAGS)
	$(BIN)/python -m benchmarks.report runs

bench-limits: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks.report limits

# The peers live in an environment of their own: nothing of ours may come to need them.
$(BENCH_VENV)/bench.stamp: requirements/bench.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --require-hashes -r requirements/bench.txt
	$(BENCH_VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	@touch $@

bench-peers: $(BENCH_VENV)/bench.stamp
	$(BENCH_VENV)/bin/python -m benchmarks.report peers $(BENCH_FLAGS)

# Needs root, buildah and debootstrap; IMAGE_FLAGS: a folder that keeps base and layers.
IMAGE_FLAGS ?=
image-check: $(VENV)/run.stamp
	PYTHON=$(BIN)/python deploy/check_image.sh $(IMAGE_FLAGS)

docs: $(VENV)/docs.stamp
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Needs pip-tools, which is not among the pinned packages: it only writes the pins. What pytest-cov asks for by an extra,
# coverage[toml], must be pinned with it: else pip takes the newest and misses its hash. A constraint has no extras.
PIP_COMPILE := pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-emit-trusted-host --strip-extras --allow-unsafe --no-header
requirements:
	$(PIP_COMPILE) --output-file requirements/run.txt pyproject.toml requirements/build.in
	$(PIP_COMPILE) --no-strip-extras --extra dev -c requirements/run.txt --output-file requirements/dev.txt pyproject.toml requirements/build.in
	$(PIP_COMPILE) --extra rtl -c requirements/run.txt -c <(sed 's/\[.*\]==/==/' requirements/dev.txt) --output-file requirements/rtl.txt pyproject.toml requirements/build.in requirements/rtl.in
	$(PIP_COMPILE) --extra metrics -c requirements/run.txt --output-file requirements/metrics.txt pyproject.toml requirements/build.in
	$(PIP_COMPILE) --extra bench -c requirements/run.txt --output-file requirements/bench.txt pyproject.toml requirements/build.in
	$(PIP_COMPILE) --extra docs -c requirements/run.txt --output-file requirements/docs.txt pyproject.toml requirements/build.in

clean:
	rm -rf $(VENV) $(BENCH_VENV) build dist docs/_build .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
