#!/usr/bin/env bash
# Checks the CUDA kernels on a machine with a card, in one command and under 10 minutes: scores against the CPU's, memory and
# races by compute-sanitizer, times, PyTorch on the same weights and inputs, and the card's own ceilings. Builds nothing.
#
# NOT YET RUN ON A CARD: what it measures is unmeasured. Its parts run on a CPU with --stand-in.
#
#   cargo build --release -p lately-cuda --example gpu_check      # on a machine with Rust; carry the binary along
#   scripts/gpu_check.sh target/release/examples/gpu_check RESULTS
#
# Needs the driver and libnvrtc. Optional, and said loudly where absent: compute-sanitizer; LATELY_GOLDEN, the folder with the
# reference cases; LATELY_REFERENCE, the folder with pinnability.py (default: reference/ in shared/ beside the repository);
# LATELY_PYTHON, a Python with torch (default: python3).
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() { sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2; }
stand_in=() seconds=3 patience=1
if [[ ${1:-} == --stand-in ]]; then stand_in=(--stand-in) seconds=0.2 patience=10; shift; fi
[[ $# == 2 ]] || usage
binary=$1 results=$2
[[ -x $binary ]] || { echo "gpu_check: $binary is no program: build it as said at the head of $0" >&2; exit 2; }
mkdir -p "$results" || exit 2
# Of an earlier run nothing may be taken for this one's.
rm -f "$results"/{correctness,sanitizer,timings,torch,results}.json "$results/results.txt"

# Seconds for each step, so that one that hangs leaves time for the others: in all below 600. A CPU has more of them.
say() { printf '[gpu_check %4ds] %s\n' "$SECONDS" "$*"; }
within() { timeout --kill-after=5 "$@"; }
check() { local most=$(($1 * patience)); shift; within "$most" "$binary" "${stand_in[@]}" "$@"; }
# What a step that failed came to.
why() { if [[ $1 == 124 || $1 == 137 ]]; then say "$2: IT RAN PAST ITS TIME"; else say "$2 (status $1)"; fi; failed=1; }
failed=0

say "scores"
golden=()
near=$here/../../shared/golden
if [[ -n ${LATELY_GOLDEN:-} ]]; then golden=(--golden "$LATELY_GOLDEN"); elif [[ -d $near ]]; then golden=(--golden "$near"); fi
check 120 correctness "${golden[@]}" --json "$results/correctness.json" || why $? "SCORES DO NOT AGREE"

say "memory and races"
if ((${#stand_in[@]})); then
    say "COMPUTE-SANITIZER IS SKIPPED: there is no card"
elif ! command -v compute-sanitizer >/dev/null; then
    say "COMPUTE-SANITIZER IS SKIPPED: it is not in PATH; it comes with the CUDA toolkit"
else
    said=()
    for tool in memcheck racecheck; do
        if within 60 compute-sanitizer --tool "$tool" --error-exitcode 9 "$binary" correctness --small >"$results/$tool.log" 2>&1; then
            said+=("\"$tool\": \"no errors\"")
        else
            status=$?
            say "$tool ENDED WITH $status:"
            tail -n 20 "$results/$tool.log"
            said+=("\"$tool\": \"ENDED WITH $status, see $tool.log\"")
            failed=1
        fi
    done
    (IFS=,; printf '{%s}\n' "${said[*]}") >"$results/sanitizer.json"
fi

say "times"
check 75 timings --seconds "$seconds" --json "$results/timings.json" || why $? "NOT MEASURED"

say "PyTorch and the card's ceilings"
reference=${LATELY_REFERENCE:-$here/../../shared/reference}
python=${LATELY_PYTHON:-python3}
if [[ ! -f $reference/pinnability.py ]]; then
    say "PYTORCH IS SKIPPED: $reference/pinnability.py is absent: set LATELY_REFERENCE to the folder that holds it"
elif ((${#stand_in[@]})); then
    check 45 export "$results/case.safetensors" || why $? "THE CASE FOR PYTORCH IS NOT WRITTEN"
    say "PYTORCH IS SKIPPED: there is no card"
elif ! "$python" -c 'import torch, safetensors' 2>/dev/null; then
    say "PYTORCH IS SKIPPED: $python has no torch or no safetensors: set LATELY_PYTHON to one that has"
else
    check 45 export "$results/case.safetensors" &&
        within 220 "$python" "$here/gpu_check_torch.py" --reference "$reference" --case "$results/case.safetensors" \
            --json "$results/torch.json" || why $? "PYTORCH IS NOT MEASURED"
fi
rm -f "$results/case.safetensors"

say "all of it, kept in $results"
check 10 table "$results" || failed=1
exit "$failed"
