# Every target makes what it needs; a clone that has nothing needs only Python 3.11 or later and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that run the tests side by side; a file's tests share one.
TEST_PROCESSES ?= 2
READY := $(VENV)/.ready

.PHONY: help demo gate test test-slurm lint types unit fuzz format clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	@echo "Installing zbench and what it needs into $(VENV), PyTorch too: some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## sweep DBCache settings on the built-in pipeline (CPU, minutes) and write the report
	$(BIN)/zbench sweep experiment=demo

test: lint types unit ## everything CI runs: lint, types, tests

gate: $(READY) ## zbench judges itself: 12 steps must be SLOWER than 8, and 8 not SLOWER than 8
	$(BIN)/zbench ab workload=single --a pipeline.steps=8 --b pipeline.steps=12 | grep ^SLOWER
	$(BIN)/zbench ab workload=single --margin 5%; code=$$?; test $$code -eq 0 -o $$code -eq 3

lint: $(READY) ## ruff, rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy --strict on the package
	$(BIN)/mypy

unit: $(READY) ## the tests
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --ignore=tests/slurm

test-slurm: $(READY) ## the tests on a real Slurm of this machine alone, skipped with a reason where there is none
	$(BIN)/python -m pytest -n 4 --dist loadfile tests/slurm

fuzz: $(READY) ## twenty times as many damaged records, journals and command lines as make test has
	ZBENCH_FUZZ_EXAMPLES=20 $(BIN)/python -m pytest tests/fuzz --timeout=3600

format: $(READY) ## put the code into ruff's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the virtual environment and caches; runs and reports stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache dist
