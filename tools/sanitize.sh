#!/usr/bin/env bash
# Runs the tests with the CPU library built under AddressSanitizer and UndefinedBehaviorSanitizer.
# usage: tools/sanitize.sh PYTHON [pytest arguments]
set -euo pipefail
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build/sanitize

cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DFASTACT_SANITIZE=ON -DFASTACT_CUDA=OFF \
  -DPython_EXECUTABLE="$python" >/dev/null
cmake --build "$build"

"$root/tools/preload.sh" "$build/libfastact_cpu.so" "$python" -m pytest "$root/tests" "$@"
