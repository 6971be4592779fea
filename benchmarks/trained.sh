#!/usr/bin/env bash
# The tables of docs/training.md: what answers how many, and how many of the first 100 guidances are without fault.
# Rows that are there are not computed again.
# Usage: benchmarks/trained.sh MODEL OUT FILE:LIMIT...
#   e.g. benchmarks/trained.sh smollm2 results/smollm2 train/data/solution_guidance.dev.jsonl:60
# The adapters are those that ship, or GUIDE_ADAPTER and ANSWERER_ADAPTER, and PROGRAM_ADAPTER if there is one. Rows of
# FILE with a teacher's "guidance" are also solved along it. THREADS and PARALLEL go to `sgft-edge evaluate`.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

model=$1 out=$2
shift 2
untuned=(--adapter none --answerer-adapter none)
tuned=(--adapter "${GUIDE_ADAPTER:-auto}" --answerer-adapter "${ANSWERER_ADAPTER:-auto}")
mkdir -p "$out"

for part in "$@"; do
    file=${part%:*} limit=${part##*:}
    set=$(basename "$file" .jsonl)
    shown=()
    run() {
        shown+=(--from "$out/$set.$1.jsonl")
        sgft-edge evaluate "$file" --limit "$limit" --guide "$model" --output "$out/$set.$1.jsonl" \
            --threads "${THREADS:-2}" --parallel "${PARALLEL:-8}" "${@:2}" > /dev/null
    }
    run cot --strategy cot "${untuned[@]}"
    run program --strategy program "${untuned[@]}"
    [[ -z ${PROGRAM_ADAPTER:-} ]] ||
        run tuned-program --strategy program --adapter none --answerer-adapter "$PROGRAM_ADAPTER"
    run untuned-first --strategy exact --plan first "${untuned[@]}"
    run untuned-stepwise --strategy exact --plan stepwise "${untuned[@]}"
    run tuned-first --strategy exact --plan first "${tuned[@]}"
    run tuned-stepwise --strategy exact --plan stepwise "${tuned[@]}"
    run tuned-guide-alone --strategy exact --plan first "${tuned[@]:0:2}" --answerer-adapter none
    run tuned-sg --strategy sg "${tuned[@]}"
    if head -n 1 "$file" | grep -q '"guidance"'; then
        run teacher --strategy exact --given-guidance "${untuned[@]}"
        run teacher-tuned --strategy exact --given-guidance "${tuned[@]}"
    fi
    echo "== $set, first $limit"
    sgft-edge evaluate "${shown[@]}"
    run untuned-guidance --strategy sg --max-tokens 1 --limit 100 "${untuned[@]}"
    run tuned-guidance --strategy sg --max-tokens 1 --limit 100 "${tuned[@]}"
    python -m benchmarks.guidance "$out/$set".{untuned-guidance,tuned-guidance,tuned-stepwise}.jsonl
done
