# Everything here makes the virtual environment itself; nothing else has to be installed but Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
# OPTIONS="--steps 60" makes a short demo

.PHONY: bench demo docs test test-fast check format fuzz audit clean

demo: $(VENV)/installed
	$(BIN)/crosscontext pretrain demo --out $(DEMO) --overwrite $(OPTIONS)
	$(BIN)/crosscontext evaluate $(DEMO)

# One thread each, since OpenMP threads of several processes wait for each other.
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal
	$(MAKE) demo DEMO=runs/demo-short OPTIONS="--steps 60"

test-fast: $(VENV)/installed
	$(BIN)/python -m pytest -m "not slow"

# The pages of docs/, into site/; any warning is an error.
docs: $(VENV)/installed
	$(BIN)/zensical build --strict

bench: $(VENV)/installed-bench
	$(BIN)/python -m bench --short

check: $(VENV)/installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Damaged bytes at every door through which files enter; the tests do the same with a hundredth of the inputs.
fuzz: $(VENV)/installed
	$(BIN)/python tests/fuzz.py --inputs 100000

# Known weaknesses of the pinned versions; asks a public database, from an environment of its own.
audit:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet pip-audit
	$(VENV)-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

clean:
	rm -rf $(VENV) $(VENV)-audit runs site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	touch $@
