# The two commands of the README: `make demo` and `make test`. Both set up what they need.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install -qq --disable-pip-version-check

.PHONY: demo test test-fast test-zoo lint package bench clean

# torch comes first and by its exact version: a range would let pip choose a CUDA build of several gigabytes.
$(VENV)/.package: pyproject.toml
	@echo "Setting up $(VENV): torch, torchao and executorch, a few minutes the first time"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade pip
	@$(PIP) torch==2.13.0
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.package
	@echo "Adding what the tests need to $(VENV): transformers, a sentence encoder, pytest, linters"
	@$(PIP) -e '.[dev]'
	@touch $@

demo: $(VENV)/.package
	@$(BIN)/vkfuse demo demo

# Two processes, each with whole files: importing torch and ExecuTorch and lowering take one core each.
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(VENV)/.dev
	$(PYTEST)

# What lowers nothing: the format, the model of the runtime, the guard, reports, repairs by themselves.
test-fast: $(VENV)/.dev
	$(PYTEST) -m "not (zoo or slow)" tests/pte tests/runtime tests/program tests/report tests/rewrite

# Every architecture in every setting; `make test` has a third of them.
test-zoo: $(VENV)/.dev
	$(PYTEST) -m "zoo or not zoo" --dist load tests/zoo tests/runtime/test_sweep.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Wheel and sdist, and what a CI image without torch does with them.
package:
	$(PYTHON) tools/package.py

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/seed_figures.py

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
