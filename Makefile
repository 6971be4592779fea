# `make solve` and `make test` need Python 3.11 or newer, a C++17 compiler and a package registry; nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
QUESTION ?= A baker sells 24 rolls in the morning and half as many in the afternoon. How many rolls are sold in the day?
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF

# Each worker of the tests computes in one thread: more would wait for each other.
PYTEST := OMP_NUM_THREADS=1 OMP_THREAD_LIMIT=1 OMP_WAIT_POLICY=passive $(BIN)/pytest
WORKERS ?= auto
PARALLEL := --numprocesses $(WORKERS) --maxprocesses 8 --dist worksteal

# Instruction sets that processors of x86-64 have, and what llama.cpp is to do without for each; and the tests that
# depend on how it computes.
KERNELS := avx2 avx
KERNELS_avx2 := -DGGML_NATIVE=OFF -DGGML_AVX512=OFF
KERNELS_avx := $(KERNELS_avx2) -DGGML_AVX2=OFF -DGGML_FMA=OFF -DGGML_F16C=OFF -DGGML_BMI2=OFF
KERNEL_TESTS := $(patsubst %,tests/*/test_%.py,adapter_choice batch calc chat engine* evaluate examples exact \
	export grammars lookup loop panel prefixes programs reproducible rows self_train server session solve solver \
	tokens votes web)

.PHONY: solve test test-slow test-kernels check bench wheel clean

solve: $(VENV)/runtime
	$(BIN)/sgft-edge models pull
	$(BIN)/sgft-edge solve "$(QUESTION)"

test: $(VENV)/dev
	$(BIN)/sgft-edge models pull smollm2
	$(PYTEST) -m "not slow" $(PARALLEL)

test-slow: $(VENV)/dev test-kernels
	OMP_WAIT_POLICY=passive $(BIN)/pytest -m slow

test-kernels: $(VENV)/dev $(KERNELS:%=$(VENV)/kernels/%)
	$(BIN)/sgft-edge models pull smollm2
	set -e; for kernels in $(KERNELS); do \
		export PYTHONPATH=$(CURDIR)/$(VENV)/kernels/$$kernels; \
		$(BIN)/python -c "from sgft_edge.llama.library import fingerprint; print(fingerprint())"; \
		$(PYTEST) -m "not slow" $(PARALLEL) $(KERNEL_TESTS); \
	done

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/runtime
	$(BIN)/sgft-edge models pull smollm2
	$(BIN)/sgft-edge bench --model smollm2

wheel: $(VENV)/dev
	rm -rf dist
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) dist build

$(VENV)/kernels/%: $(VENV)/runtime
	CMAKE_ARGS="$(CMAKE_ARGS) $(KERNELS_$*)" $(PIP) --no-cache-dir --no-deps --upgrade \
		--no-binary llama-cpp-python --target $@ llama-cpp-python
	touch $@

$(VENV)/runtime: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing. Where no prebuilt llama-cpp-python is at hand, llama.cpp is compiled now: up to 10 minutes."
	$(PIP) --editable .
	touch $@

$(VENV)/dev: $(VENV)/runtime
	$(PIP) --upgrade "pip>=25.1"
	$(PIP) --editable '.[train]' --group dev
	touch $@
