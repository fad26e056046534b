# `make two-regions` and `make test` set up everything that they need, each on a fresh Debian machine as root.
PYTHON := .venv/bin/python

.PHONY: help setup two-regions test test-unit test-long bench lint format destroy

help:
	@echo "make two-regions   set up everything, then run experiments/two_regions.py"
	@echo "make test          set up everything, then run the tests (a real cloud among them)"
	@echo "make test-unit     the tests that need neither root nor a cloud"
	@echo "make test-long     the tests that take longer than 'make test' may"
	@echo "make bench         speed and size, as figures"
	@echo "make lint format   ruff"

setup:
	@sh setup.sh

two-regions: setup
	$(PYTHON) experiments/two_regions.py $(ARGS)

test: setup
	$(PYTHON) -m pytest $(ARGS)

test-unit: setup
	$(PYTHON) -m pytest tests/unit $(ARGS)

test-long: setup
	$(PYTHON) -m pytest --long $(ARGS)

bench: setup
	$(PYTHON) tests/bench/bench.py $(ARGS)

lint:
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check

format:
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format
