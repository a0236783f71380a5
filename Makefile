PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ON_CORES := -n 2 --dist worksteal

.PHONY: train test quick chaos check bench clean

train: $(VENV)/.run
	$(BIN)/python launch.py

bench: $(VENV)/.test
	for name in learner sampler causal rewards weights retrieval pipeline learning; do $(BIN)/python -m benchmarks.$$name || exit; done

test quick chaos: export PYTHONDONTWRITEBYTECODE =  # compiled tests are kept, which pytest would compile anew each time

test: $(VENV)/.test
	$(BIN)/python -m pytest $(ON_CORES)

quick: $(VENV)/.test
	$(BIN)/python -m pytest $(ON_CORES) -m "not slow and not integration"

chaos: $(VENV)/.test
	$(BIN)/python -m pytest -m slow
	for name in resume chaos; do $(BIN)/python -m benchmarks.$$name || exit; done

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

$(VENV)/.run: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$(PYTHON) is not Python 3.11 to 3.13: name one with 'make PYTHON=python3.12 $(MAKECMDGOALS)'" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) lacks venv or ensurepip: apt-get install python3-venv (or your system's package of that name)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements.txt
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements-test.txt
	$(BIN)/pip install --quiet -r requirements-test.txt
	@touch $@
