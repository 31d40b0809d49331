# Every target that a person may call has a line that begins with ##. `make help` prints them.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run demo check test test-chaos fmt migrate pins bench-smoke bench-queue bench-scan bench-api bench-load clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.built-from
SEEDS ?=
STOCK ?=
MINUTES ?=

## help         print these lines
help:
	@grep -h '^## ' $(MAKEFILE_LIST) | sed 's/^## /  make /'

## run          build what is missing, start everything here, show one payment, stay up until Ctrl-C (NO_DEMO=1: no payment)
run: $(STAMP)
	@$(BIN)/python -m ctrip.local

## demo         the same, and end after the payment
demo: $(STAMP)
	@$(BIN)/python -m ctrip.local --demo

## check        format, ruff, mypy, layers, fast tests: must pass on every commit
check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports --no-logo
	$(BIN)/pytest -q -m "not infra and not chaos"

## test         the gate, on real parts, in three lanes side by side (TESTS=path for some of them, one after the other)
test: $(STAMP)
ifdef TESTS
	$(BIN)/pytest -q -m "not chaos" $(TESTS)
else
	@$(BIN)/python -c 'from pathlib import Path; from ctrip.local import devchain as chain; \
	  folder = Path(".data/npm"); chain.find_anvil(folder) or chain.install_anvil(folder)'  # once, not by each lane
	@TEST_PORTS=40 $(LANE) $(WORKER_TESTS) $(STACK_TESTS:%=--ignore=%) > .data/test-workers.log 2>&1 & workers=$$!; \
	TEST_PORTS=80 $(LANE) $(STACK_TESTS) > .data/test-stack.log 2>&1 & stack=$$!; \
	$(LANE) $(WORKER_TESTS:%=--ignore=%) $(STACK_TESTS:%=--ignore=%); rest=$$?; \
	wait $$workers; workers=$$?; wait $$stack; stack=$$?; \
	cat .data/test-workers.log .data/test-stack.log; exit $$(( rest | workers | stack ))
endif

LANE = $(BIN)/pytest -q -m "not chaos"
# These start and kill whole processes and wait for them; the others keep a core busy meanwhile. Ports of their own.
# All that needs the running stack is in one lane: it takes seconds to start, and a third of a core while it runs.
WORKER_TESTS = tests/actors tests/local tests/outbound tests/test_startup_refusals.py tests/test_lies.py \
	$(wildcard tests/services/test_webhook*.py) tests/services/test_relay.py tests/test_money_rules.py
STACK_TESTS = tests/ops tests/local/test_stack.py tests/test_walk.py tests/test_admin_walk.py tests/test_secrets.py \
	tests/services/test_catching_up.py tests/services/test_contested_blocks.py tests/test_faults.py \
	tests/web tests/cli tests/clients tests/test_crashes.py tests/test_reorgs.py tests/test_forged_tokens.py tests/test_honest_heads.py
## test-chaos   faults for minutes, with printed seeds (SEEDS=1,2,3 MINUTES=10); 200 seeds of lying nodes among them
test-chaos: $(STAMP)
	SEEDS="$(SEEDS)" MINUTES="$(MINUTES)" $(BIN)/pytest -q -s --timeout=0 -m chaos $(TESTS)

## fmt          format and mend what ruff can
fmt: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## migrate      bring the database of DATABASE_URL to this version
migrate: $(STAMP)
	@$(BIN)/python -m ctrip.cli db upgrade

## pins         write requirements*.txt anew from requirements*.in, with hashes
pins: $(STAMP)
	$(UV_COMPILE) requirements.in -o requirements.txt
	$(UV_COMPILE) -c requirements.txt requirements-dev.in -o requirements-dev.txt

## bench-smoke  payments per second, seconds to `detected` and to the webhook, memory; last line is JSON
bench-smoke: $(STAMP)
	@$(BIN)/python -m bench.smoke

## bench-queue  Dramatiq as it comes against ours, fault by fault; latency, webhooks per second (STOCK=slow: 15 min more)
bench-queue: $(STAMP)
	@STOCK=$(STOCK) $(BIN)/python -m bench.queue

## bench-api    creates per second through the whole API, against pgbench and FastAPI + asyncpg; get and list at 1,000,000
bench-api: $(STAMP)
	@$(BIN)/python -m bench.api

## bench-load   100 requests a second for 10 minutes (MINUTES=1), with everything at work: latency, errors, memory, CPU
bench-load: $(STAMP)
	@MINUTES="$(MINUTES)" $(BIN)/python -m bench.load

## bench-scan   our scanner against a plain one of web3.py, at 1,000 and 1,000,000 addresses; what a head costs
bench-scan: $(STAMP)
	@$(BIN)/python -m bench.scan

## clean        remove the environment; data in .data stay
clean:
	rm -rf $(VENV)

# No index URL reaches the files: whoever installs from them may use another mirror.
UV_COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--prerelease if-necessary-or-explicit --no-emit-index-url

# run.py builds the environment, and anew only when the pins changed. --require-hashes: what is installed is what was
# reviewed.
$(STAMP): requirements-dev.txt
	@$(PYTHON) run.py build
