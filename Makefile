PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# What needs no database: rules, documents, the law of the layout, what the documents are made from.
FAST := tests/rules tests/documents tests/cli/test_views.py tests/docs/test_generated.py tests/test_architecture.py tests/test_settings.py

.PHONY: up help test test-fast test-lab test-lab-engines lint docs bench lock dist clean

# What builds us is in the locked environment, too.
OURSELVES = $(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .

# Tools that are run from an environment of their own, which is removed afterwards.
UV := uv==0.13.9
CYCLONEDX := cyclonedx-bom==7.5.0
WITH_TOOL = set -e; tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; $(PYTHON) -m venv "$$tools"; "$$tools/bin/pip" install --quiet

up: $(VENV)/.installed ## install and run everything on the embedded database
	@exec $(BIN)/skyctl up

help: ## show these targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

ifdef FILE
test: $(VENV)/.installed-dev ## install and run the checks and the tests; FILE=tests/... runs one file or folder alone
	@$(BIN)/python -m pytest $(FILE)
else
test: $(VENV)/.installed-dev lint
	@$(BIN)/python -m pytest -n 4 --dist loadfile
endif

test-fast: $(VENV)/.installed-dev ## the tests that need no database, within half a minute
	@$(BIN)/python -m pytest -q $(FAST)

test-lab: $(VENV)/.installed-dev ## the tests that need root, Debian and a Docker engine of their own
	@$(BIN)/python -m pytest tests/lab -n 3 --dist loadfile

# What hangs on how an engine behaves, with those of Debian releases after this machine's.
ENGINE_TESTS := $(addprefix tests/lab/test_,engine.py draining_a_stack.py migrations.py moving.py)
test-lab-engines: $(VENV)/.installed-dev ## some of these with the Docker engines of Debian trixie and sid
	@status=0; for release in trixie sid; do echo "== $$release"; \
	  SKYLAB_ENGINE=$$release $(BIN)/python -m pytest $(ENGINE_TESTS) -n 3 --dist loadfile || status=$$?; done; exit $$status

lint: $(VENV)/.installed-dev ## the checks alone: ruff, its formatter, mypy
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check . && $(BIN)/mypy

docs: $(VENV)/.installed-dev ## make again what is generated: docs/reference, man, completions
	@UPDATE_DOCUMENTS=1 $(BIN)/python -m pytest -q tests/docs/test_generated.py tests/docs/test_reference.py tests/docs/test_architecture_document.py

bench: $(VENV)/.installed-dev ## what needs neither root nor an hour, and one table of every figure that has a limit
	@$(BIN)/python benchmarks/_all.py

lock: ## write requirements.lock and requirements-dev.lock again, from pyproject.toml and constraints.txt
	@$(WITH_TOOL) '$(UV)'; for extra in '' -dev; do \
	  printf 'hatchling\neditables\n' | "$$tools/bin/uv" pip compile --quiet pyproject.toml - $${extra:+--extra dev} \
	    --constraint constraints.txt --universal --python-version 3.11 --generate-hashes --no-annotate \
	    --custom-compile-command 'make lock' --output-file "requirements$$extra.lock"; done

dist: $(VENV)/.installed ## wheel, source, the list of what the manager needs (SBOM, CycloneDX) and checksums, into dist/
	@rm -rf dist && $(BIN)/python -m hatchling build --directory dist >/dev/null && cd dist && sha256sum * > SHA256SUMS
	@$(WITH_TOOL) '$(CYCLONEDX)'; version=$$($(BIN)/python -c 'import skyagent; print(skyagent.__version__)'); \
	"$$tools/bin/cyclonedx-py" requirements requirements.lock --pyproject pyproject.toml --output-reproducible \
	  --index-url urn:lock: \
	  --output-format JSON --output-file "dist/skyctl-$$version.cdx.json"
	@$(BIN)/python -c 'import json, pathlib, sys; path = pathlib.Path(sys.argv[1]); bom = json.loads(path.read_text()); \
	  [tool.pop("externalReferences", None) for tool in bom["metadata"]["tools"]["components"]]; \
	  path.write_text(json.dumps(bom, indent=1) + "\n")' dist/*.cdx.json # addresses of the tool itself
	@cd dist && sha256sum --check --quiet SHA256SUMS && sha256sum *.cdx.json >> SHA256SUMS && cat SHA256SUMS

clean: ## remove the virtual environment and what was built
	@rm -rf $(VENV) build dist

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11"; echo "hint: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; } >&2
	@$(PYTHON) -m venv $(VENV) || { echo "hint: on Debian and Ubuntu: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 1; }

$(VENV)/.installed: $(VENV)/bin/pip pyproject.toml requirements.lock skyagent/__init__.py
	@echo "Installing skyctl into $(VENV) ..." >&2
	@$(BIN)/pip install --quiet --require-hashes --requirement requirements.lock
	@$(OURSELVES)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/pip pyproject.toml requirements-dev.lock skyagent/__init__.py
	@echo "Installing skyctl and its tests into $(VENV) ..." >&2
	@$(BIN)/pip install --quiet --require-hashes --requirement requirements-dev.lock
	@$(OURSELVES)
	@touch $@ $(VENV)/.installed
