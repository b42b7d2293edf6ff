#!/usr/bin/env bash
# Runs a program with a library that was built under sanitizers in place of the installed one.
# usage: tools/preload.sh LIBRARY PROGRAM [arguments]
set -euo pipefail
export FASTACT_LIBRARY=$1
shift
# The runtime has to be the first in the process; torch's and Python's own allocations are not ours to
# judge, so leaks stay off.
asan=$(${CXX:-c++} -print-file-name=libasan.so)
ubsan=$(${CXX:-c++} -print-file-name=libubsan.so)
stdcxx=$(${CXX:-c++} -print-file-name=libstdc++.so)
export ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
LD_PRELOAD="$asan $ubsan $stdcxx" exec "$@"
