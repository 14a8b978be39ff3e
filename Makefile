# Everything runs in a virtual environment of its own, made on first use and again whenever
# pyproject.toml or constraints.txt change. Another interpreter: `make test PYTHON=python3.13`.
VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BRIDGES := $(VENV)/.bridges
TIANSHOU := .venv-tianshou/.installed
RLLIB := .venv-rllib/.installed
DOCS_EXTRA := $(VENV)/.docs

# One torch thread in each of two test processes: on two cores that is faster than two in one.
WORKERS ?= 2
TESTS ?=
DEMO_OUT ?= runs/demo

.DEFAULT_GOAL := help
.PHONY: help demo test test-tianshou test-rllib check format docs bench

help:
	@echo "make demo    teach the bundled model to write better stories, into $(DEMO_OUT)"
	@echo "make test    run every test (TESTS=tests/textgym for some of them)"
	@echo "make test-tianshou  the recipe of a library that wants other versions, in .venv-tianshou"
	@echo "make test-rllib     the bridge to Ray RLlib, which pins an earlier gymnasium, in .venv-rllib"
	@echo "make check   lint, formatting, types, the direction of imports, and docs/envs up to date"
	@echo "make format  put the code into the form that check asks for"
	@echo "make bench   measure everything in docs/performance.md again, and rewrite its tables and plots"
	@echo "make docs    write docs/envs, the pages of the environments, from the registry"

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python of version 3.11 or later found." \
		"Install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON): once, some minutes."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[dev]" -c constraints.txt
	@touch $@

# One of its dependencies is compiled: without a compiler its tests are skipped, and say so.
$(BRIDGES): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[reasoning-gym]" -c constraints.txt \
		|| echo "reasoning-gym could not be installed; the tests of its bridge are skipped." >&2
	@touch $@

demo: $(STAMP)
	$(BIN)/textgym train textgym/Story-v0 --model bundled --timesteps 400000 --learning-rate 5e-4 --seed 0 \
		--out $(DEMO_OUT) --resume

test: $(STAMP) $(BRIDGES)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(TESTS)

# Tianshou wants earlier versions of pandas and virtualenv than the rest, and Ray of gymnasium: each
# has an environment and constraints of its own.
$(TIANSHOU) $(RLLIB): .venv-%/.installed: pyproject.toml constraints-%.txt
	@test -n "$(PYTHON)" || { echo "No Python of version 3.11 or later found." \
		"Install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(@D)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --disable-pip-version-check -e ".[$*]" pytest \
		-c constraints-$*.txt
	@touch $@

# The main run leaves these out (`addopts` in pyproject.toml); named, they run.
test-tianshou: $(TIANSHOU)
	OMP_NUM_THREADS=1 $(<D)/bin/python -m pytest tests/agents/recipes/test_tianshou_dqn.py

test-rllib: $(RLLIB)
	OMP_NUM_THREADS=1 $(<D)/bin/python -m pytest tests/rllib

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python docs/generate.py --check

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)
	$(BIN)/python docs/generate.py

$(DOCS_EXTRA): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[docs]" -c constraints.txt
	@touch $@

bench: $(STAMP) $(DOCS_EXTRA)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench.py
