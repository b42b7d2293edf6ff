#!/usr/bin/env bash
# Runs tests of the ops with the CUDA kernels in place of the CPU's: the same sources, executed on the
# CPU (tests/emulation), under AddressSanitizer and UndefinedBehaviorSanitizer.
# usage: tools/emulate.sh PYTHON [pytest arguments]
set -euo pipefail
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build/emulation
PATH=$(dirname "$python"):$PATH

cmake -S "$root/tests/emulation" -B "$build" -G Ninja -DFASTACT_SANITIZE=ON \
  -DPython_EXECUTABLE="$python" >/dev/null
cmake --build "$build"

if [ $# -eq 0 ]; then
  for name in cuda cuda_strided values edges inplace cross_entropy_values cross_entropy_edges \
    cross_entropy_inplace cross_entropy_expected losses_values losses_autograd; do
    set -- "$@" "$root/tests/test_$name.py"
  done
fi
# A process for each core, and none of torch's threads, which spin between tiny operations: on a slow
# machine it took an hour.
OMP_NUM_THREADS=1 "$root/tools/preload.sh" "$build/libfastact_emulated.so" "$python" -m pytest -q \
  -n auto --dist worksteal -k "not peak_memory and not no_classes and not threads" "$@"
