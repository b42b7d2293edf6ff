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

.PHONY: help demo test exhaustive lint format wheel wheel-any check-wheel check-torch sanitize emulate \
	bench bench-overhead bench-compare bench-models bench-monitor cutoffs docs clean

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

# A process for each core up to four, which each take whole files, and one of torch's threads in each:
# threads of several processes that share the cores spin in each other's way.
PYTEST := -m pytest -n auto --maxprocesses 4 --dist loadfile
test: $(BIN)/.extra-test  ## Runs the tests
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST)

# Twenty minutes on two cores. EXHAUSTIVE="--step 61 gelu silu" takes every 61st input of two activations.
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

# auditwheel finds the oldest manylinux that the library allows. torch's libraries are torch's to bring.
wheel: $(BIN)/.extra-release  ## Builds dist/fastact-*-py3-none-manylinux_*.whl
	rm -rf dist/*manylinux* build/dist
	$(BIN)/python -m build --wheel --no-isolation --outdir build/dist
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --exclude 'libtorch*' --exclude 'libc10*' \
		-w dist build/dist/*.whl

wheel-any: $(BIN)/.extra-release  ## Builds dist/fastact-*-py3-none-any.whl: no compiled code, Numba's kernels
	rm -rf dist/*-any.whl
	$(BIN)/python -m build --wheel --no-isolation --outdir dist -Cwheel.cmake=false

# The part of the suite that the wheel has to pass, in two minutes; "make test" runs all of it on an
# editable install of the same sources. TESTS=tests runs all of it here.
TESTS ?= $(addprefix tests/test_,import.py api.py wheel.py values.py edges.py errors.py autograd.py \
	transforms.py losses_values.py losses_errors.py cross_entropy_edges.py cli.py cli_doctor.py \
	cli_explain.py cli_check.py cli_scripts.py monitor.py monitor_gated.py monitor_interplay.py)
CHECK := build/wheel-check

check-wheel: wheel wheel-any  ## Installs the wheels into an empty environment and tests them there
	rm -rf $(CHECK) build/no-compiler
	$(PYTHON) -m venv $(CHECK)
	$(CHECK)/bin/pip install -q "$(TORCH)"
	$(CHECK)/bin/pip install -q dist/*-any.whl
	cd $(CHECK) && bin/python ../../tools/smoke.py numba
	CXX=/bin/false $(BIN)/pip wheel -v --no-build-isolation --no-deps -Cbuild-dir=build/no-compiler/tree \
		-w build/no-compiler . 2>&1 \
		| grep -o "No C++ compiler was found: .*"
	$(CHECK)/bin/pip install -q --force-reinstall --no-deps build/no-compiler/*.whl
	cd $(CHECK) && bin/python ../../tools/smoke.py numba
	$(CHECK)/bin/pip install -q --force-reinstall --no-deps dist/*manylinux*.whl
	cd $(CHECK) && bin/python ../../tools/smoke.py compiled
	$(CHECK)/bin/pip install -q $$($(BIN)/python tools/extra.py test)
	$(CHECK)/bin/python -m pytest -q -p no:cacheprovider $(TESTS)

# What CI has no time for: the whole suite on the wheel, with the oldest torch and with the newest.
OTHER := build/torch-check
check-torch: $(if $(WITH),wheel)  ## Runs all tests on the wheel with another torch: WITH=torch==2.10.0
	@test -n "$(WITH)" || { echo "make check-torch WITH=torch==<version>" >&2; exit 2; }
	rm -rf $(OTHER)
	$(PYTHON) -m venv $(OTHER)
	$(OTHER)/bin/pip install -q "$(WITH)" dist/*manylinux*.whl $$($(BIN)/python tools/extra.py test)
	$(OTHER)/bin/pip install -q --no-deps --target $(OTHER)/vision $(VISION)
	OMP_NUM_THREADS=1 $(OTHER)/bin/python $(PYTEST) -p no:cacheprovider

sanitize: $(BIN)/.extra-test  ## Runs the tests with the CPU library under ASan and UBSan
	tools/sanitize.sh $(BIN)/python

emulate: $(BIN)/.extra-test  ## Runs the CUDA kernels' sources on the CPU, under ASan and UBSan
	tools/emulate.sh $(BIN)/python

bench: $(BIN)/.extra-bench  ## Compares with torch on this machine; ARGS=--quick takes two minutes
	$(BIN)/python benchmarks/bench.py $(ARGS)

bench-overhead: $(BIN)/.extra-bench  ## Times one call on one element
	$(BIN)/python benchmarks/overhead.py $(ARGS)

bench-models: $(BIN)/.extra-test  ## Times real models before and after replace()
	$(BIN)/python benchmarks/models.py $(ARGS)

bench-compare: $(BIN)/.extra-bench  ## Compares the working tree with BASE=<revision>
	@test -n "$(BASE)" || { echo "make bench-compare BASE=<revision>" >&2; exit 2; }
	$(BIN)/python benchmarks/compare.py $(BASE) $(ARGS)

bench-monitor: $(BIN)/.extra-bench  ## Times a training step with fastact.monitor
	$(BIN)/python benchmarks/monitor.py

cutoffs: $(BIN)/.extra-bench  ## Measures from which size on the kernels beat torch
	$(BIN)/python benchmarks/cutoffs.py $(ARGS)

docs: $(BIN)/.extra-docs  ## Builds the documentation site into build/docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

clean:  ## Removes what was built
	rm -rf build dist $(BIN)/.fastact
