#!/usr/bin/env bash
# Checks the CUDA kernels on a machine with a card, in one command and under 10 minutes: scores, losses and gradients against
# the CPU's, times, PyTorch on the same weights and inputs, the card's own ceilings, and memory and races by compute-sanitizer.
# Builds nothing. A step that fails is said and stops no other one.
#
# NOT YET RUN ON A CARD: what it measures is unmeasured. Its parts run on a CPU with --stand-in.
#
#   cargo build --release -p lately-cuda --example gpu_check      # on a machine with Rust; carry the binary along
#   scripts/gpu_check.sh target/release/examples/gpu_check RESULTS
#
# Needs the driver and libnvrtc. Optional, and said loudly where absent: compute-sanitizer; LATELY_GOLDEN, the folder with the
# reference cases; LATELY_REFERENCE, the folder with pinnability.py (default: reference/ in shared/ beside the repository),
# for serving; LATELY_PYTHON, a Python with torch and safetensors (default: python3).
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() { sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2; }
stand_in=() serving=3 training=2 patience=1
if [[ ${1:-} == --stand-in ]]; then stand_in=(--stand-in) serving=0.2 training=0.2 patience=10; shift; fi
[[ $# == 2 ]] || usage
binary=$1 results=$2
[[ -x $binary ]] || { echo "gpu_check: $binary is no program: build it as said at the head of $0" >&2; exit 2; }
mkdir -p "$results" || exit 2
# Of an earlier run nothing may be taken for this one's.
rm -f "$results"/{correctness,training,sanitizer,timings,training_timings,torch,torch_training,results}.json
rm -f "$results/results.txt"

# Seconds in all, of which the last ones are the table's. Each step has its own limit, so that one that hangs leaves time for
# the others, and none may take what is not there. What matters most comes first. A CPU has more time.
budget=$((570 * patience))
failed=0
say() { printf '[gpu_check %4ds] %s\n' "$SECONDS" "$*"; }
left() { local most=$(($1 * patience)) rest=$((budget - SECONDS)); echo $((most < rest ? most : rest)); }
# within SECONDS COMMAND...: 125 where no time is left.
within() { local most; most=$(left "$1"); shift; ((most >= 5)) || return 125; timeout --kill-after=5 "$most" "$@"; }
check() { local most=$1; shift; within "$most" "$binary" "${stand_in[@]}" "$@"; }
# What a step that failed came to.
why() {
    case $1 in
        124 | 137) say "$2: IT RAN PAST ITS TIME" ;;
        125) say "$2: NO TIME WAS LEFT" ;;
        *) say "$2 (status $1)" ;;
    esac
    failed=1
}

say "training: losses, gradients and runs"
check 100 training --json "$results/training.json" || why $? "TRAINING DOES NOT AGREE"

say "scores"
golden=()
near=$here/../../shared/golden
if [[ -n ${LATELY_GOLDEN:-} ]]; then golden=(--golden "$LATELY_GOLDEN"); elif [[ -d $near ]]; then golden=(--golden "$near"); fi
check 90 correctness "${golden[@]}" --json "$results/correctness.json" || why $? "SCORES DO NOT AGREE"

say "times of training"
check 90 training-timings --seconds "$training" --json "$results/training_timings.json" ||
    why $? "TRAINING IS NOT MEASURED IN FULL"

say "times of scoring"
check 60 timings --seconds "$serving" --json "$results/timings.json" || why $? "SCORING IS NOT MEASURED"

say "PyTorch and the card's ceilings"
reference=${LATELY_REFERENCE:-$here/../../shared/reference}
python=${LATELY_PYTHON:-python3}
torch() { "$python" -c 'import torch, safetensors' 2>/dev/null; }
on=cuda
if ((${#stand_in[@]})); then on=cpu; fi
if ! torch; then
    say "PYTORCH IS SKIPPED: $python has no torch or no safetensors: set LATELY_PYTHON to one that has"
    if ((${#stand_in[@]})); then
        check 30 training-export "$results/training.safetensors" || why $? "THE CASE FOR PYTORCH IS NOT WRITTEN"
    fi
else
    check 30 training-export "$results/training.safetensors" &&
        within 150 "$python" "$here/gpu_check_torch_training.py" --device "$on" --until "$(($(left 150) * 7 / 10))" \
            --seconds "$training" --case "$results/training.safetensors" --json "$results/torch_training.json" ||
        why $? "PYTORCH'S TRAINING IS NOT MEASURED IN FULL"
fi
if [[ ! -f $reference/pinnability.py ]]; then
    say "PYTORCH'S SCORING IS SKIPPED: $reference/pinnability.py is absent: set LATELY_REFERENCE to the folder that holds it"
elif ((${#stand_in[@]})); then
    check 45 export "$results/case.safetensors" || why $? "THE CASE FOR PYTORCH IS NOT WRITTEN"
    say "PYTORCH'S SCORING IS SKIPPED: there is no card"
elif torch; then
    check 30 export "$results/case.safetensors" &&
        within 150 "$python" "$here/gpu_check_torch.py" --reference "$reference" --until "$(($(left 150) * 7 / 10))" \
            --case "$results/case.safetensors" --json "$results/torch.json" ||
        why $? "PYTORCH'S SCORING IS NOT MEASURED IN FULL"
fi
rm -f "$results"/{case,training}.safetensors

say "memory and races"
if ((${#stand_in[@]})); then
    say "COMPUTE-SANITIZER IS SKIPPED: there is no card"
elif ! command -v compute-sanitizer >/dev/null; then
    say "COMPUTE-SANITIZER IS SKIPPED: it is not in PATH; it comes with the CUDA toolkit"
else
    said=()
    for what in training correctness; do
        for tool in memcheck racecheck; do
            log=$tool-$what.log
            if within 60 compute-sanitizer --tool "$tool" --error-exitcode 9 "$binary" "$what" --small \
                >"$results/$log" 2>&1; then
                said+=("\"$tool, $what\": \"no errors\"")
            else
                status=$?
                why "$status" "$tool OF $what"
                tail -n 20 "$results/$log"
                said+=("\"$tool, $what\": \"ENDED WITH $status, see $log\"")
            fi
        done
    done
    (IFS=,; printf '{%s}\n' "${said[*]}") >"$results/sanitizer.json"
fi

say "all of it, kept in $results"
timeout --kill-after=5 20 "$binary" table "$results" || failed=1
exit "$failed"
