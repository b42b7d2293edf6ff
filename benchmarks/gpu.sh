#!/usr/bin/env bash
# Builds for the GPU at hand, tests there, and measures: everything in one command, within 9 minutes.
# usage: benchmarks/gpu.sh   the figures go to $OUT, or to benchmarks/results without; the logs to
#                            build/gpu, and all of them in one file, log.txt, to $OUT
#
# Needs a checkout, nvcc with the C++ compiler that it calls, and a python3 with torch, numpy, pytest,
# cmake and ninja; no network, and nothing is installed outside build/. Each part has a time limit, and
# one that fails does not stop the others. FASTACT_REVISION names the revision where there is no history
# to ask. PREBUILT=1 takes the libraries that lie in build/gpu-site/fastact/lib, from a build on another
# machine, if they answer.
# GPU=none, with FASTACT_LIBRARY=<path of libfastact_emulated.so>, tries this script without a GPU.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

logs=$PWD/build/gpu
results=$(mkdir -p "${OUT:-benchmarks/results}" && cd "${OUT:-benchmarks/results}" && pwd) || exit
all=${OUT:-$logs}/log.txt
mkdir -p "$logs" && rm -f "$logs"/*.log && : >"$all"
site=$PWD/build/gpu-site
seconds=530 factor=1 # for all of it
[[ ${GPU:-} == none ]] && seconds=5300 factor=10
python=$(command -v "${PYTHON:-python3}") || exit
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
PATH=$PATH:$(dirname "$python"):$("$python" -c "import os, sys; print(os.path.dirname(sys.executable))")
PATH=$PATH:/usr/local/cuda/bin
export PATH PYTHONPATH=$site PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
summary=()

# part NAME SECONDS COMMAND...: with a log of its own; keeps some time for what follows.
part() {
  local name=$1 limit=$(($2 * factor)) begin=$SECONDS status verdict
  shift 2
  ((limit > seconds - SECONDS)) && limit=$((seconds - SECONDS))
  if ((limit < 5)); then
    summary+=("$(printf '%-22s no time left' "$name")")
    return 1
  fi
  echo "== $name: at most $limit s"
  # An interrupt, on which pytest still says what has failed.
  timeout --signal=INT --kill-after=10 "$limit" "$@" >"$logs/$name.log" 2>&1
  status=$?
  verdict="ok"
  ((status == 0)) || verdict="FAILED, exit code $status"
  ((status == 124 || status == 137)) && verdict="STOPPED at its limit"
  grep -qE '^[0-9]+ skipped in' "$logs/$name.log" && verdict="FAILED: everything was skipped"
  summary+=("$(printf '%-22s %4d s  %s  %s' "$name" $((SECONDS - begin)) "$verdict" \
    "$(grep -E '^=* ?[0-9]+ (passed|failed|skipped).* in |ERROR SUMMARY|RACECHECK SUMMARY' \
      "$logs/$name.log" | tail -1)")")
  # At once: what comes later may be cut short.
  { echo "== $name: $verdict" && cat "$logs/$name.log"; } >>"$all"
  [[ $verdict == ok ]]
}

# Where a kernel hangs, an interrupt is not heard, but the stack of the test is printed.
pytest() {
  "$python" -m pytest -q -p no:cacheprovider --tb=short -o faulthandler_timeout=45 "$@"
}

build() {
  local cuda=ON architecture
  if [[ ${GPU:-} == none ]]; then
    cuda=OFF architecture=90
  else
    architecture=$("$python" -c "import torch; print('%d%d' % torch.cuda.get_device_capability())") || return
  fi
  if [[ -n ${PREBUILT:-} ]]; then
    cp -R src/fastact/. "$site/fastact/" && "$python" -c "$answers" && return
  fi
  rm -rf "$site"
  # Without pip, which a python3 may lack: what a wheel has in it is this folder and the libraries.
  "$python" -m cmake --version >/dev/null 2>&1 && cmake=("$python" -m cmake) || cmake=(cmake)
  "${cmake[@]}" -S . -B build/gpu-build -G Ninja -DCMAKE_BUILD_TYPE=Release -DFASTACT_CUDA=$cuda \
    -DFASTACT_CUDA_ARCHITECTURES="$architecture" -DPython_EXECUTABLE="$python" || return
  "${cmake[@]}" --build build/gpu-build || return
  "${cmake[@]}" --install build/gpu-build --prefix "$site" || return
  mkdir -p "$site/fastact" && cp -R src/fastact/. "$site/fastact/" || return
  "$python" -c "import fastact; print(*fastact.backends(), sep='\n')" || return
  [[ ${GPU:-} == none ]] || "$python" -c "$answers"
}

# That it is the GPU library that answers, and rightly, before anything is measured.
answers='
import torch, fastact
x = torch.randn(1000, 100, device="cuda", requires_grad=True)
want = torch.nn.functional.silu(x.double())
with fastact.backend("compiled"):
    y = fastact.functional.silu(x)
assert torch.equal(y, torch.ops.fastact.silu(x.detach()))
assert "GPU: CUDA" in fastact.backends()[0].detail, fastact.backends()[0].detail
torch.testing.assert_close(y, want.float())
print("the GPU library answers, on", torch.cuda.get_device_name())
'

# In several processes, where there is pytest-xdist.
workers() {
  "$python" -c "import xdist" 2>/dev/null && echo "-n 6 --dist loadgroup"
}

# Streams, graphs, memory, the compiler: what no emulation has seen.
runtime_tests() {
  # shellcheck disable=SC2046
  pytest $(workers) --run-slow --durations=5 tests/test_cuda_runtime.py
}

cuda_tests() {
  # shellcheck disable=SC2046
  pytest $(workers) --durations=5 tests/test_cuda.py tests/test_cuda_strided.py
}

ordinary_tests() {
  local device=cuda
  [[ ${GPU:-} == none ]] && device=cpu
  # shellcheck disable=SC2046
  pytest $(workers) --device "$device" --maxfail=50 --durations=5 tests/test_inplace.py \
    tests/test_cross_entropy_inplace.py tests/test_cross_entropy_expected.py \
    tests/test_cross_entropy_edges.py tests/test_cross_entropy_values.py tests/test_losses_values.py
}

# sanitize TOOL: a row of each kind of plan, and every address; our kernels, not torch's. The allocator
# is off, so that each tensor is an allocation with an end of its own. A hazard between the blocks of a
# cluster (16385) may be one that the tool does not know of: it is documented for shared memory of a block.
sanitize() {
  local which="test_every_alignment and swiglu and bfloat16"
  which+=" or test_cross_entropy and ([64-bfloat16] or [2049-bfloat16])"
  which+=" or test_softmax and -8-float32]"
  which+=" or test_strided_rows and 257-17-bfloat16"
  which+=" or test_rows_kept and (1025-bfloat16 or 16385-bfloat16)"
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$1" --error-exitcode 9 --print-limit 20 \
    --kernel-name kns=fastact --report-api-errors no --target-processes all \
    "$python" -m pytest -q -p no:cacheprovider -x tests/test_cuda.py tests/test_cuda_strided.py \
    -k "$which"
}

benchmarks() {
  local left=$((seconds - SECONDS - 25))
  if [[ ${GPU:-} == none ]]; then
    "$python" benchmarks/gpu.py --out "$results" --dry-run --ops silu swiglu cross_entropy softmax
  else
    "$python" benchmarks/gpu.py --out "$results" --seconds $((left < 220 ? left : 220)) \
      --compile-seconds $((left / 3))
  fi
}
export -f pytest build workers runtime_tests cuda_tests ordinary_tests sanitize benchmarks
export results site seconds python answers

run() {
  part "$1" "$2" bash -c "SECONDS=$SECONDS; ${*:3}"
}

if run build 175 build; then
  run runtime 80 runtime_tests
  run tests 75 cuda_tests
  # Before what may be cut short, the figures.
  run benchmarks 245 benchmarks
  if command -v compute-sanitizer >/dev/null; then
    run memcheck 60 sanitize memcheck
    run racecheck 60 sanitize racecheck
  fi
  run ordinary-tests 100 ordinary_tests
fi

for log in runtime tests ordinary-tests; do
  [[ -f $logs/$log.log ]] && grep -E "^(FAILED|ERROR) " "$logs/$log.log" | cut -c1-160 | head -15
done
[[ -f $logs/build.log ]] && tail -3 "$logs/build.log" | cut -c1-300
if [[ -f $logs/benchmarks.log ]]; then
  tail -n 400 "$logs/benchmarks.log"
fi
printf '%s\n' "" "${summary[@]}" "" "written to $results, logs to $logs, in $SECONDS s"
[[ ${summary[*]} != *FAILED* && ${summary[*]} != *STOPPED* && ${summary[*]} != *"no time"* ]]
