#!/usr/bin/env bash
# From problems with guidance to an answer, in four commands: check, train, export, solve.
# Usage: examples/pipeline.sh [BASE] [OUT], where BASE is a known model's name or a GGUF file, from a checkout with
# `make test` behind it. A few steps of training show the way and teach little: leave out --rows for the real thing.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

base=${1:-smollm2}
out=${2:-runs/pipeline}
data=train/data/solution_guidance

# Is the guidance numbered steps in words, without arithmetic, and do its expressions lead to the answers?
python -m train.check_sg $data.train.jsonl $data.dev.jsonl

# One adapter for both: it writes plans, and steps with their expressions. Killed in between, it goes on.
python -m train.sgft --base "$base" --role guide+solver --data $data.train.jsonl --dev $data.dev.jsonl \
    --rows 16 --epochs 1 --validity 4 --out "$out/adapter"

# The adapter as a GGUF file of a few MB, proven against PEFT's own logits.
python convert/export_gguf.py "$out/adapter" --out "$out/export" --format adapter --verify-rows 2

# The base reads the question with the adapter on; the runtime computes.
sgft-edge solve --guide "$base" --adapter "$out"/export/*.gguf --strategy exact \
    "A baker sells 24 rolls in the morning and half as many in the afternoon. How many rolls are sold in the day?"
