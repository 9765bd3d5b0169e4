# `make demo` and `make test` need nothing but Python 3.11 or newer and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := restore_cli tests training benchmarks
BENCH ?= ../shared/bench
WEIGHTS ?= $(wildcard ../shared/checkpoints/*.pth)

.PHONY: demo test lint types tests gpu results fmt clean

demo: $(VENV)/.installed
	$(BIN)/restore sr --model lite examples/cat.png --overwrite

test: lint types tests

lint: $(VENV)/.dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(VENV)/.dev
	$(BIN)/mypy

tests: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2

gpu: $(VENV)/.dev
	$(BIN)/python -m pytest tests/test_cuda.py -rs

results: $(VENV)/.installed
	$(BIN)/python -m benchmarks.results --bench $(BENCH) --weights $(WEIGHTS)

fmt: $(VENV)/.dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .[dev]
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
