# make setup once, then make test while you work. CONTRIBUTING.md says more.
PYTHON = .venv/bin/python
SCRIPTS = .ci/run tests/setup.sh tests/machine.sh tests/benchmarks/loop.sh systemd/package/build.sh

.PHONY: setup test all lint format

setup:   # what the tests need; as root also programs
	sh tests/setup.sh

test:    # the tests for every save, a few minutes on two cores
	$(PYTHON) -m pytest -m 'not slow' --dist worksteal

all:     # what CI runs
	$(PYTHON) -m pytest

lint:    # formatter, linter, types, shell scripts, spelling
	$(PYTHON) -m ruff format --check . && $(PYTHON) -m ruff check . && $(PYTHON) -m mypy
	.venv/bin/shellcheck $(SCRIPTS) && .venv/bin/codespell

format:  # mend the format
	$(PYTHON) -m ruff format .
