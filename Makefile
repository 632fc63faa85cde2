PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# What needs no database: rules, documents, the law of the layout, what the documents are made from.
FAST := tests/rules tests/documents tests/cli/test_views.py tests/docs/test_generated.py tests/test_architecture.py tests/test_settings.py

.PHONY: up help test test-fast test-lab lint docs bench clean

up: $(VENV)/.installed ## install and run everything on the embedded database
	@exec $(BIN)/skyctl up

help: ## show these targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

ifdef FILE
test: $(VENV)/.installed-dev ## install and run the checks and the tests; FILE=tests/... runs one file or folder alone
	@$(BIN)/python -m pytest $(FILE)
else
test: $(VENV)/.installed-dev lint
	@$(BIN)/python -m pytest -n 3 --dist loadfile
endif

test-fast: $(VENV)/.installed-dev ## the tests that need no database, within half a minute
	@$(BIN)/python -m pytest -q $(FAST)

test-lab: $(VENV)/.installed-dev ## the tests that need root, Debian and a Docker engine of their own
	@$(BIN)/python -m pytest tests/lab -n 3 --dist loadfile

lint: $(VENV)/.installed-dev ## the checks alone: ruff, its formatter, mypy
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check . && $(BIN)/mypy

docs: $(VENV)/.installed-dev ## make again what is generated: README's settings, docs/reference, completions
	@UPDATE_DOCUMENTS=1 $(BIN)/python -m pytest -q tests/docs/test_generated.py tests/docs/test_reference.py tests/docs/test_architecture_document.py

bench: $(VENV)/.installed-dev ## every benchmark, side by side, as ratios
	@set -e; for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python $$file; done

clean: ## remove the virtual environment and what was built
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
