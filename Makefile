# make run    the quickstart: six instructions on a system of its own, then a chat
# make test   all tests, against a private RabbitMQ and a private PostgreSQL
# make check  what CI runs: lint, types, the site, tests
# make docs   the site of docs/, into site/; fails at a broken link
# make reference  the pages of docs/reference/ anew, from the code and from examples that are run
# make faults nothing lost, nothing done twice, whatever breaks: SCENARIO=… ROUNDS=… SEED=… AGAIN=1
# make audit  the pinned packages beside PyPI's list of known vulnerabilities
# make bench  our figures beside stock Celery's: SCENARIO=latency for one, QUICK=1 for a short run
PYTHON ?= python3
# Test processes at once, each with servers of its own: most tests wait, for a server or for a worker.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
export ENDPOINT MODEL API_KEY
.DEFAULT_GOAL := help
.PHONY: help run up test lint types docs reference check audit format bench faults clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "LLMChatLinker needs Python 3.11 or newer; $(PYTHON) is older."; \
	  echo "What to do: make PYTHON=python3.12 …, with the name of a newer one."; exit 1; }
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "What to do: install Python's venv module (Debian, Ubuntu: apt install python3-venv)."; exit 1; }

$(VENV)/.local: requirements.txt requirements-local.txt setup.cfg | $(BIN)/python
	@echo "Installing the package and the embedded system (about 150 MB, a minute or so)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-local.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.local
	@echo "Installing the developers' tools"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-dev.txt
	@touch $@

run: $(VENV)/.local
	@$(BIN)/llmchatlinker run

up: $(VENV)/.local
	@$(BIN)/llmchatlinker up

test: $(VENV)/.dev
	@$(BIN)/python -m tests.servers.install rabbitmq pgbouncer promtool faketime nginx
	@$(BIN)/llmchatlinker model fetch
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(VENV)/.dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: $(VENV)/.dev
	@$(BIN)/mypy

docs: $(VENV)/.dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

reference: $(VENV)/.dev
	@$(BIN)/python -m tests.servers.install rabbitmq
	@RECORD_EXAMPLES=1 $(BIN)/python -m pytest -q tests/integration/test_reference_examples.py
	@$(BIN)/python -m tools.reference

check: lint types docs test

bench: $(VENV)/.dev
	@$(BIN)/python -m tests.servers.install rabbitmq
	@$(BIN)/python -m benchmarks $(SCENARIO) $(if $(QUICK),--quick)

faults: $(VENV)/.dev
	@$(BIN)/python -m tests.servers.install rabbitmq faketime
	@$(BIN)/python -m faults $(SCENARIO) $(if $(ROUNDS),--rounds $(ROUNDS)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(AGAIN),--again)

# Of its own, since its dependencies are not ours. Fails where the advisories can't be had.
audit:
	@test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && \
	  $(VENV)/audit/bin/pip install -q --disable-pip-version-check pip-audit==2.10.1; }
	@$(VENV)/audit/bin/pip-audit --strict --disable-pip --no-deps --progress-spinner off \
	  $(foreach name,requirements requirements-local requirements-dev,-r $(name).txt)

format: $(VENV)/.dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache *.egg-info
