PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: up test test-lab lint bench clean

up: $(VENV)/.installed ## install and run everything on the embedded database
	@exec $(BIN)/skyctl up

test: $(VENV)/.installed-dev lint ## install and run the checks and the tests
	@$(BIN)/python -m pytest -n 3 --dist loadfile

test-lab: $(VENV)/.installed-dev ## the tests that need root, Debian and a Docker engine of their own
	@$(BIN)/python -m pytest tests/lab -n 3 --dist loadfile

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check . && $(BIN)/mypy

bench: $(VENV)/.installed-dev ## every benchmark, side by side, as ratios
	@set -e; for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python $$file; done

clean:
	@rm -rf $(VENV) build dist

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11"; echo "hint: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; } >&2
	@$(PYTHON) -m venv $(VENV) || { echo "hint: on Debian and Ubuntu: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 1; }

$(VENV)/.installed: $(VENV)/bin/pip pyproject.toml constraints.txt skyagent/__init__.py
	@echo "Installing skyctl into $(VENV) ..." >&2
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/pip pyproject.toml constraints.txt skyagent/__init__.py
	@echo "Installing skyctl and its tests into $(VENV) ..." >&2
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.installed
