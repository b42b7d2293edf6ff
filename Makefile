# make demo and make test set up everything they need in .venv; see README.md.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The torch of development. fastact itself runs on every torch from 2.10 on.
TORCH ?= torch==2.13.0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Everything the compiled library is built from.
NATIVE := CMakeLists.txt pyproject.toml $(shell find csrc cmake -type f)

.PHONY: help demo test exhaustive lint format wheel check-wheel sanitize emulate \
	bench bench-overhead bench-compare cutoffs clean

help:  ## Lists the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# torch comes first and by itself: a build environment of its own would download another one.
$(BIN)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q "$(TORCH)" numpy numba
	$(BIN)/pip install -q "scikit-build-core>=0.10" "cmake>=3.24" ninja build
	@touch $@

$(BIN)/.fastact: $(BIN)/.torch $(NATIVE)
	$(BIN)/pip install -q --no-build-isolation --no-deps --config-settings=cmake.define.FASTACT_WERROR=ON -e .
	@touch $@

$(BIN)/.extra-%: $(BIN)/.fastact pyproject.toml
	$(BIN)/pip install -q $$($(BIN)/python tools/extra.py $*)
	@touch $@

demo: $(BIN)/.extra-demo  ## Trains small nets with torch.nn and fastact.nn side by side
	$(BIN)/python examples/demo.py

test: $(BIN)/.extra-test  ## Runs the tests
	$(BIN)/python -m pytest

# Half an hour on two cores. EXHAUSTIVE="--step 61 gelu silu" takes every 61st input of two activations.
exhaustive: $(BIN)/.torch  ## Compares every float32, bfloat16 and float16 with float64
	$(BIN)/cmake -S . -B build/exhaustive -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python
	$(BIN)/cmake --build build/exhaustive --target exhaustive --parallel 2
	build/exhaustive/exhaustive $(EXHAUSTIVE)

lint: $(BIN)/.extra-lint $(BIN)/.extra-test  ## Checks style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(find csrc tools tests -name '*.h' -o -name '*.cpp' -o -name '*.cu')
	$(BIN)/mypy

format: $(BIN)/.extra-lint  ## Formats the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(find csrc tools tests -name '*.h' -o -name '*.cpp' -o -name '*.cu')

wheel: $(BIN)/.torch  ## Builds dist/fastact-*-py3-none-*.whl
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

check-wheel: wheel  ## Installs the wheel into an empty environment and uses it there
	rm -rf build/wheel-check
	$(PYTHON) -m venv build/wheel-check
	build/wheel-check/bin/pip install -q "$(TORCH)" numpy
	build/wheel-check/bin/pip install -q dist/*.whl
	cd build/wheel-check && bin/python ../../tools/smoke.py

sanitize: $(BIN)/.extra-test  ## Runs the tests with the CPU library under ASan and UBSan
	tools/sanitize.sh $(BIN)/python

emulate: $(BIN)/.extra-test  ## Runs the CUDA kernels' sources on the CPU, under ASan and UBSan
	tools/emulate.sh $(BIN)/python

bench: $(BIN)/.extra-benchmark  ## Compares with torch on this machine; ARGS=--quick takes two minutes
	$(BIN)/python benchmarks/bench.py $(ARGS)

bench-overhead: $(BIN)/.extra-benchmark  ## Times one call on one element
	$(BIN)/python benchmarks/overhead.py $(ARGS)

bench-compare: $(BIN)/.extra-benchmark  ## Compares the working tree with BASE=<revision>
	@test -n "$(BASE)" || { echo "make bench-compare BASE=<revision>" >&2; exit 2; }
	$(BIN)/python benchmarks/compare.py $(BASE) $(ARGS)

cutoffs: $(BIN)/.extra-benchmark  ## Measures from which size on the kernels beat torch
	$(BIN)/python benchmarks/cutoffs.py $(ARGS)

clean:  ## Removes what was built
	rm -rf build dist $(BIN)/.fastact
