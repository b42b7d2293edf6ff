#!/usr/bin/env bash
# Runs the tests with the CPU library built under AddressSanitizer and UndefinedBehaviorSanitizer.
# usage: tools/sanitize.sh PYTHON [pytest arguments]
set -euo pipefail
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build/sanitize

cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DFASTACT_SANITIZE=ON \
  -DPython_EXECUTABLE="$python" >/dev/null
cmake --build "$build"

# FASTACT_LIBRARY names the library to load instead of the installed one. The runtime has to be the
# first in the process; torch's and Python's own allocations are not ours to judge, so leaks stay off.
asan=$(${CXX:-c++} -print-file-name=libasan.so)
ubsan=$(${CXX:-c++} -print-file-name=libubsan.so)
stdcxx=$(${CXX:-c++} -print-file-name=libstdc++.so)
FASTACT_LIBRARY=$build/libfastact_cpu.so \
  LD_PRELOAD="$asan $ubsan $stdcxx" \
  ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0 \
  UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
  "$python" -m pytest "$root/tests" "$@"
