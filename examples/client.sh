#!/usr/bin/env bash
# Ask a running `sgft-edge serve` with curl: at once, and as a stream. Usage: examples/client.sh [URL]
set -euo pipefail
url=${1:-http://127.0.0.1:8080}

curl --fail-with-body --silent --show-error "$url/v1/chat/completions" -H "Content-Type: application/json" -d '{
    "messages": [{"role": "user", "content": "A shop sells 5 bikes for 120 dollars each. How much is that?"}],
    "strategy": "exact"
}'
echo

curl --fail-with-body --silent --show-error --no-buffer "$url/v1/chat/completions" -H "Content-Type: application/json" -d '{
    "messages": [{"role": "user", "content": "Hello!"}],
    "stream": true, "max_tokens": 32
}'
