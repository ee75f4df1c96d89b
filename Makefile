# Each target sets up what it needs: a machine with Python 3.11+ and git is enough.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
TEST_PROCESSES ?= 2
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo -n)
TINY_FAMILIES := qwen3_vl qwen3_vl_moe nemotron_h_omni cosmos3_edge
TINY_MODELS := $(TINY_FAMILIES:%=models/tiny/%/config.json)

.PHONY: setup browser tiny demo test test-all lint check bench lock format

setup: .venv/ready

# uv where it is there, pip otherwise. --no-deps: the lock is complete, and pip cannot express the lock's overrides. uv runs in / for the lock:
# here it would read [tool.uv] override-dependencies, which replace the lock's own versions.
.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..." >&2; exit 2; }
	@if command -v uv >/dev/null 2>&1; then \
	    echo "setup: .venv with uv" && { [ -x $(BIN)/python ] || uv venv -q --python $(PYTHON) .venv; } && \
	    uv --directory / pip install -q --python $(CURDIR)/$(BIN)/python --no-deps -r $(CURDIR)/requirements.lock && uv pip install -q --python $(BIN)/python --no-deps -e . ; \
	else \
	    echo "setup: .venv with pip (a few minutes the first time)" && { [ -x $(BIN)/pip ] || $(PYTHON) -m venv --clear .venv; } && \
	    $(BIN)/python -m pip install -q --no-compile --no-deps -r requirements.lock && $(BIN)/python -m pip install -q --no-deps -e . ; \
	fi
	@touch $@

# The tests of the pages run a real browser: Debian's, where there is none yet.
browser:
	@command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || { \
	    echo "setup: chromium-headless-shell with apt-get"; \
	    $(AS_ROOT) apt-get update -qq && $(AS_ROOT) apt-get install -y -qq --no-install-recommends chromium-headless-shell >/dev/null; } || \
	    { echo "the tests of the pages need chromium or chromium-headless-shell on the PATH" >&2; exit 2; }

tiny: $(TINY_MODELS)

models/tiny/%/config.json: | .venv/ready
	@$(ONE_THREAD) $(BIN)/vlm-train make-tiny --family $* models/tiny/$*

demo: .venv/ready models/tiny/qwen3_vl/config.json
	@$(ONE_THREAD) PATH="$(CURDIR)/$(BIN):$$PATH" bash configs/tiny/demo.sh

test: .venv/ready tiny browser
	@$(ONE_THREAD) $(BIN)/python -m pytest -n $(TEST_PROCESSES) -m "not slow and not gpu"

test-all: .venv/ready tiny browser
	@$(ONE_THREAD) $(BIN)/python -m pytest -n $(TEST_PROCESSES) -m "not gpu"

lint: .venv/ready
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

# The architecture test is one of the tests.
check: lint test

bench: .venv/ready tiny
	@for file in tests/benchmarks/bench_*.py; do $(ONE_THREAD) $(BIN)/python "$$file" || exit 1; done

# For people who change dependencies; needs uv.
lock:
	uv lock -q --upgrade && uv export -q --no-emit-project --no-header --all-groups -o requirements.lock

format: .venv/ready
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .
