#!/usr/bin/env bash
# The tables of docs/training.md. Rows that are there are not computed again.
# Usage: benchmarks/trained.sh MODEL ADAPTER OUT FILE:LIMIT...
#   e.g. benchmarks/trained.sh smollm2 smollm2-sgft results/smollm2 train/data/solution_guidance.dev.jsonl:60
# Rows of FILE with a teacher's "guidance" are also solved along it. THREADS and PARALLEL go to `sgft-edge evaluate`.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

model=$1 adapter=$2 out=$3
shift 3
mkdir -p "$out"

for part in "$@"; do
    file=${part%:*} limit=${part##*:}
    set=$(basename "$file" .jsonl)
    shown=() guided=()
    run() {
        shown+=(--from "$out/$set.$1.jsonl")
        sgft-edge evaluate "$file" --limit "$limit" --guide "$model" --output "$out/$set.$1.jsonl" \
            --threads "${THREADS:-2}" --parallel "${PARALLEL:-8}" "${@:2}" > /dev/null
    }
    run cot --strategy cot --adapter none
    run program --strategy program --adapter none
    run untuned-first --strategy exact --plan first --adapter none
    run untuned-stepwise --strategy exact --plan stepwise --adapter none
    run tuned-stepwise --strategy exact --plan stepwise --adapter "$adapter"
    run tuned-first --strategy exact --plan first --adapter "$adapter"
    run tuned-first-untuned-answerer --strategy exact --plan first --adapter "$adapter" --answerer-adapter none
    run tuned-sg --strategy sg --adapter "$adapter"
    if head -n 1 "$file" | grep -q '"guidance"'; then
        run teacher --strategy exact --given-guidance --adapter none
        run teacher-tuned --strategy exact --given-guidance --adapter "$adapter"
    fi
    echo "== $set, first $limit"
    sgft-edge evaluate "${shown[@]}"
    run untuned-guidance --strategy sg --max-tokens 1 --adapter none
    for name in untuned-guidance tuned-sg tuned-stepwise; do guided+=("$out/$set.$name.jsonl"); done
    python -m benchmarks.guidance "${guided[@]}"
done
