# `make demo` and `make test` need nothing but Python 3.11 or newer and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := restore_cli tests training benchmarks
BENCH ?= ../shared/bench
PUBLISHED ?= ../shared/published
WEIGHTS ?=

.PHONY: demo test lint types tests tests-portable gpu published results bench bench-gpu fmt clean

demo: $(VENV)/.installed
	$(BIN)/restore sr examples/cat.png --overwrite

test: lint types tests

lint: $(VENV)/.dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(VENV)/.dev
	$(BIN)/mypy

tests: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2

tests-portable: $(VENV)/.dev
	PYTHONPATH=$(CURDIR)/tests/without_unix $(BIN)/python -m pytest -n 2

gpu: $(VENV)/.dev
	$(BIN)/python -m pytest tests/test_cuda.py -rs

published: $(VENV)/.dev
	PUBLISHED=$(abspath $(PUBLISHED)) $(BIN)/python -m pytest -m published tests/test_published.py -rs

results: $(VENV)/.installed
	$(BIN)/python -m benchmarks.results --bench $(BENCH) --weights $(WEIGHTS)

bench: .venv-bench/.installed
	.venv-bench/bin/python -m benchmarks.speed

bench-gpu: .venv-bench/.installed
	.venv-bench/bin/python -m benchmarks.kernel
	.venv-bench/bin/python -m benchmarks.speed --device cuda --side 512 --rounds 9

fmt: $(VENV)/.dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .[dev,cluster]
	touch $@

.venv-bench/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	.venv-bench/bin/pip install --quiet --disable-pip-version-check --no-deps spandrel==0.4.2 spandrel_extra_arches==0.2.0
	.venv-bench/bin/pip install --quiet --disable-pip-version-check openvino==2026.4.1
	touch $@

clean:
	rm -rf $(VENV) .venv-bench .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
