# `make solve` and `make test` need Python 3.11 or newer, a C++17 compiler and a package registry; nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
QUESTION ?= A baker sells 24 rolls in the morning and half as many in the afternoon. How many rolls are sold in the day?
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF

.PHONY: solve test test-slow check bench wheel clean

solve: $(VENV)/runtime
	$(BIN)/sgft-edge models pull
	$(BIN)/sgft-edge solve "$(QUESTION)"

test: $(VENV)/dev
	$(BIN)/sgft-edge models pull smollm2
	OMP_WAIT_POLICY=passive $(BIN)/pytest -m "not slow"

test-slow: $(VENV)/dev
	$(BIN)/sgft-edge models pull smollm2
	OMP_WAIT_POLICY=passive $(BIN)/pytest -m slow

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/runtime
	$(BIN)/sgft-edge models pull smollm2
	$(BIN)/sgft-edge bench --model smollm2

wheel: $(VENV)/dev
	rm -rf dist
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) dist build

$(VENV)/runtime: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing. Where no prebuilt llama-cpp-python is at hand, llama.cpp is compiled now: up to 10 minutes."
	$(PIP) --editable .
	touch $@

$(VENV)/dev: $(VENV)/runtime
	$(PIP) --upgrade "pip>=25.1"
	$(PIP) --editable '.[train]' --group dev
	touch $@
