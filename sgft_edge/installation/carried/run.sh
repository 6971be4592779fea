#!/bin/sh
# Runs sgft-edge from this folder: run.sh solve "...". Installs it first where that is still to be done.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

"$here/install.sh" # checks all files each time, and installs once
export SGFT_EDGE_MODELS="$here/models"
export SGFT_EDGE_CONFIG="$here/config"
if [ -w "$here" ]; then export SGFT_EDGE_CACHE="$here/cache"; fi
exec "$here/env/bin/python" -m sgft_edge.cli "$@"
