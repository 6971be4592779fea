#!/usr/bin/env bash
# The tables of docs/training.md and docs/results.md: what answers how many, and how many guidances are without fault.
# Rows that are there are not computed again.
# Usage: benchmarks/results.sh MODEL OUT FILE:LIMIT...
#   e.g. RUNS="cot tuned-stepwise" benchmarks/results.sh smollm2 results/smollm2 train/data/solution_guidance.dev.jsonl:60
# RUNS names the lines of the table, those of the case below; all, where it is not set. The adapters are those that
# ship, or GUIDE_ADAPTER and ANSWERER_ADAPTER, and PROGRAM_ADAPTER for tuned-program. THREADS and PARALLEL go to
# `sgft-edge evaluate`.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

model=$1 out=$2
shift 2
untuned=(--adapter none --answerer-adapter none)
tuned=(--adapter "${GUIDE_ADAPTER:-auto}" --answerer-adapter "${ANSWERER_ADAPTER:-auto}")
all="direct cot plan calc program untuned-sg tuned-sg untuned-first untuned-stepwise tuned-first tuned-stepwise"
all="$all tuned-guide-alone votes panel teacher teacher-tuned untuned-guidance tuned-guidance"
mkdir -p "$out"

options() {
    case $1 in
    direct | cot | plan | calc | program) echo --strategy "$1" "${untuned[@]}" ;;
    tuned-program) echo --strategy program --adapter none --answerer-adapter "$PROGRAM_ADAPTER" ;;
    untuned-sg) echo --strategy sg "${untuned[@]}" ;;
    tuned-sg) echo --strategy sg "${tuned[@]}" ;;
    untuned-first) echo --strategy exact --plan first "${untuned[@]}" ;;
    untuned-stepwise) echo --strategy exact --plan stepwise "${untuned[@]}" ;;
    tuned-first) echo --strategy exact --plan first "${tuned[@]}" ;;
    tuned-stepwise) echo --strategy exact --plan stepwise "${tuned[@]}" ;;
    tuned-guide-alone) echo --strategy exact --plan first "${tuned[@]:0:2}" --answerer-adapter none ;;
    votes) echo --strategy exact "${tuned[@]}" --votes 5 ;;
    panel) echo --strategy panel "${tuned[@]}" ;;
    teacher) echo --strategy exact --given-guidance "${untuned[@]}" ;;
    teacher-tuned) echo --strategy exact --given-guidance "${tuned[@]}" ;;
    untuned-guidance) echo --strategy sg --max-tokens 1 --limit 100 "${untuned[@]}" ;;
    tuned-guidance) echo --strategy sg --max-tokens 1 --limit 100 "${tuned[@]}" ;;
    *) echo "results.sh: expected one of $all, found $1" >&2 && return 2 ;;
    esac
}

for part in "$@"; do
    file=${part%:*} limit=${part##*:}
    set=$(basename "$file" .jsonl)
    lines=() guidances=()
    for name in ${RUNS:-$all}; do
        [[ $name != teacher* ]] || head -n 1 "$file" | grep -q '"guidance"' || continue
        rows="$out/$set.$name.jsonl" asked=$(options "$name")
        # shellcheck disable=SC2086 # several words
        sgft-edge evaluate "$file" --limit "$limit" --guide "$model" --output "$rows" \
            --threads "${THREADS:-2}" --parallel "${PARALLEL:-8}" $asked > /dev/null
        if [[ $name == *-guidance ]]; then guidances+=("$rows"); else lines+=(--from "$rows"); fi
    done
    echo "== $set, first $limit"
    if ((${#lines[@]})); then sgft-edge evaluate "${lines[@]}" --report "$out/$set.md" --report "$out/$set.html"; fi
    if ((${#guidances[@]})); then python -m benchmarks.guidance "${guidances[@]}"; fi
done
