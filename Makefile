# Two commands: `make demo` shows what SegLens does, `make test` runs everything. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test check setup system wheel benchmark benchmark-peers benchmark-memory clean

demo: setup
	$(BIN)/seglens demo --out demo

test: setup
	# one torch thread in each of two workers: threads that wait for each other cost more than they bring
	OMP_NUM_THREADS=1 xvfb-run -a -s "-screen 0 1600x1000x24" $(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST)

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

benchmark: benchmark-peers benchmark-memory

benchmark-peers: setup
	$(BIN)/python -m benchmarks --write-docs $(BENCHMARK)

benchmark-memory: setup
	$(BIN)/python benchmarks/memory_20k.py

clean:
	rm -rf $(VENV) demo dist build .pytest_cache .mypy_cache .ruff_cache
