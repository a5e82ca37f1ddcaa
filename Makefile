# make demo        both phases on phantoms, with a report
# make test        lint, types, import contract and all tests but the slow ones (half an hour on 2 cores)
# make test-quick  the tests that start neither Ray nor whole commands (4 minutes)
# make test-slow   kills, several nodes, 100,000 broken files (under 25 minutes on 2 cores)
# make fuzz        100,000 broken files for the readers, by hypothesis (about 10 minutes)
PYTHON ?= python3
RUN := .venv/bin/python -m
TWO := -n 2 --dist loadfile
# Two processes of tests share the cores, and threads that spin while they wait would keep the other's from them.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test test-quick test-slow fuzz lint clean

demo: .venv/installed
	@$(RUN) rlcas demo

test: lint
	@$(RUN) pytest -m "not slow" $(TWO)

test-quick: lint
	@$(RUN) pytest -m "not slow and not medium" $(TWO)

test-slow: .venv/installed
	@$(RUN) pytest -m slow $(TWO)

fuzz: .venv/installed
	@.venv/bin/python benchmarks/fuzz.py

lint: .venv/installed
	@$(RUN) ruff check .
	@$(RUN) ruff format --check --quiet .
	@$(RUN) mypy
	@.venv/bin/lint-imports --no-logo

.venv/installed: pyproject.toml constraints.txt setup.sh
	@PYTHON="$(PYTHON)" sh setup.sh

clean:
	rm -rf .venv
