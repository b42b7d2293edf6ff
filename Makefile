# make demo and make test set up everything they need in .venv; see README.md.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The torch of development. fastact itself runs on every torch from 2.10 on.
TORCH ?= torch==2.13.0
VISION ?= "timm>=1.0" torchvision==0.28.0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Everything the compiled library is built from.
NATIVE := CMakeLists.txt pyproject.toml $(shell find csrc cmake -type f)

.PHONY: help demo test exhaustive lint format wheel check-wheel sanitize \
	bench bench-overhead bench-models bench-compare cutoffs clean

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

# torch is named again, so that what an extra depends on comes in a version for it.
$(BIN)/.extra-%: $(BIN)/.fastact pyproject.toml
	$(BIN)/pip install -q "$(TORCH)" $$($(BIN)/python tools/extra.py $*)
	@touch $@

# timm needs torchvision, whose wheel on the package index is for torch with CUDA. Beside a CPU build of
# torch it cannot be imported, and transformers neither once it is there. So the two lie in a folder of
# their own, which benchmarks/torchvision_cpu.py looks into.
$(BIN)/.extra-test: $(BIN)/.vision
$(BIN)/.vision: $(BIN)/.torch
	$(BIN)/pip install -q --no-deps --upgrade --target $(VENV)/vision $(VISION)
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
	$(BIN)/clang-format --dry-run --Werror $$(find csrc tools -name '*.h' -o -name '*.cpp')
	$(BIN)/mypy

format: $(BIN)/.extra-lint  ## Formats the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(find csrc tools -name '*.h' -o -name '*.cpp')

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

bench: $(BIN)/.extra-benchmark  ## Compares with torch on this machine; ARGS=--quick takes two minutes
	$(BIN)/python benchmarks/bench.py $(ARGS)

bench-overhead: $(BIN)/.extra-benchmark  ## Times one call on one element
	$(BIN)/python benchmarks/overhead.py $(ARGS)

bench-models: $(BIN)/.extra-test  ## Times real models before and after replace()
	$(BIN)/python benchmarks/models.py $(ARGS)

bench-compare: $(BIN)/.extra-benchmark  ## Compares the working tree with BASE=<revision>
	@test -n "$(BASE)" || { echo "make bench-compare BASE=<revision>" >&2; exit 2; }
	$(BIN)/python benchmarks/compare.py $(BASE) $(ARGS)

cutoffs: $(BIN)/.extra-benchmark  ## Measures from which size on the kernels beat torch
	$(BIN)/python benchmarks/cutoffs.py $(ARGS)

clean:  ## Removes what was built
	rm -rf build dist $(BIN)/.fastact
