# `make run` and `make test` need nothing but Python 3.11+ and pip: each makes its own .venv.

PYTHON ?= python3
VENV := .venv/bin
ARGS ?=
# Two processes, each file of tests in one of them. ARGS="-n 4" for more; "-n 0 --pdb" for one, to look into.
PARALLEL := -n 2 --dist loadfile

export NAS_HOME ?= $(CURDIR)/.nas

.PHONY: run test test-all check bench clean

run:  ## the service with everything embedded, and the demo (ARGS=--exit ends when the demo does)
	@$(PYTHON) bootstrap.py run
	@exec $(VENV)/python -m nas.cli serve --demo $(ARGS)

test:  ## everything but the slow suites: under 20 minutes on two cores
	@$(PYTHON) bootstrap.py dev
	$(VENV)/python -m pytest $(PARALLEL) -m "not slow" $(ARGS)

test-all:  ## the slow suites too: under 60 minutes
	@$(PYTHON) bootstrap.py dev
	$(VENV)/python -m pytest $(PARALLEL) $(ARGS)

check:  ## style, types, import rule
	@$(PYTHON) bootstrap.py dev
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/lint-imports

bench:  ## the measurements behind docs/results.md
	@$(PYTHON) bootstrap.py dev
	$(VENV)/python -m bench $(ARGS)

clean:  ## forget the environment; data in NAS_HOME stays
	rm -rf .venv .venv.lock
