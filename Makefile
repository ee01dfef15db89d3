# Two commands: `make demo` shows what SegLens does, `make test` runs everything. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test check setup system wheel benchmark clean

demo: setup
	$(BIN)/seglens demo --out demo

test: setup
	xvfb-run -a $(BIN)/python -m pytest $(PYTEST)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/npe2 validate src/seglens/napari.yaml
	$(BIN)/python scripts/budgets.py

setup: system $(READY)

system:
	@scripts/system-packages
	@scripts/python-version

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[test,check]"
	@touch $(READY)

wheel: setup
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

benchmark: setup
	$(BIN)/python benchmarks/memory_20k.py

clean:
	rm -rf $(VENV) demo dist build .pytest_cache .mypy_cache .ruff_cache
