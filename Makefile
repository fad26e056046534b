# `make two-regions` and `make test` set up everything that they need, each on a fresh Debian machine as root.
VENV := .venv/bin
# With -n, tests run in several processes (tests/arrangement.py); without it in one.
PYTEST := $(VENV)/python -m pytest

# Where it is set, every start of a command compiles some eight hundred modules again (5 s instead of 2).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup two-regions test test-unit test-debian-python test-long bench lint docs evidence format destroy

help:
	@echo "make two-regions   set up everything, then run experiments/two_regions.py"
	@echo "make test          set up everything, then run the tests (a real cloud among them)"
	@echo "make test-unit     the tests that need neither root nor a cloud"
	@echo "make test-debian-python   the same, on /usr/bin/python3 where that is another one"
	@echo "make test-long     the tests that take longer than 'make test' may, and only these"
	@echo "make bench         speed and size, as figures"
	@echo "make lint format   ruff; which room imports which; types"
	@echo "make docs          the documentation as a site: site/index.html"
	@echo "make evidence      the numbers and figures of README and docs, from runs (ARGS: --sample RUN …)"

setup:
	@sh setup.sh

two-regions: setup
	$(VENV)/python experiments/two_regions.py $(ARGS)

test: setup
	$(PYTEST) -n 2 $(ARGS)

test-unit: setup
	$(PYTEST) -n logical tests/unit $(ARGS)

test-debian-python: setup
	@python=$$(sh tests/debian_python.sh) && if [ -z "$$python" ]; then echo "it is the one of make test-unit"; \
		else $$python -m pytest -n logical tests/unit $(ARGS); fi

test-long: setup
	$(PYTEST) -n 2 --long -m "long or ends_cloud" $(ARGS)

bench: setup
	$(VENV)/python tests/bench/bench.py $(ARGS)

lint:
	$(VENV)/python -m ruff check
	$(VENV)/python -m ruff format --check
	$(VENV)/lint-imports
	$(VENV)/mypy

# Not --quiet: warnings are not counted then.
docs:
	NO_MKDOCS_2_WARNING=1 $(VENV)/mkdocs build --strict

# Without ARGS: all of it again from the runs that are kept.
evidence:
	$(VENV)/python docs/tools/evidence.py $(ARGS)

format:
	$(VENV)/python -m ruff check --fix
	$(VENV)/python -m ruff format
