# Every target works on a fresh machine: the environment is made on first use, and again when pyproject.toml changes.
#
#   make setup        only the environment (.venv)
#   make demo         rooms, GRPO, scores, the page and the export; leaves runs/demo
#   make test         all tests;  make test-fast: those that are not marked slow
#   make test-latest  those with Python 3.13 and the newest JAX, in .venv-latest
#   make lint         ruff and mypy;  make format: ruff, writing
#   make docs         the documentation as a site, in site/
#
# PYTHON=python3.12 chooses the interpreter.

VENV := .venv
RECIPE := pyproject.toml setup/environment.sh setup/fetch_pip.py setup/native_libraries.py

.PHONY: interpreter setup demo test test-fast test-latest lint format docs

setup: $(VENV)/.scans

# An environment that is up to date, and of another Python than PYTHON.
interpreter:
	@sh setup/environment.sh $(VENV) check

$(VENV)/.scans: $(RECIPE) | interpreter
	@sh setup/environment.sh $(VENV) scans
	@touch $@

$(VENV)/.test: $(RECIPE) | interpreter
	@sh setup/environment.sh $(VENV) test
	@touch $@ $(VENV)/.scans $(VENV)/.docs

$(VENV)/.docs: $(RECIPE) | interpreter
	@sh setup/environment.sh $(VENV) docs
	@touch $@

demo: $(VENV)/.scans
	@$(VENV)/bin/python launch/demo.py

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal

test-fast: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not slow"

test-latest:
	@$(MAKE) VENV=.venv-latest PYTHON=python3.13 test-fast

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.test
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build
