#!/usr/bin/env bash
# split_train.sh CONFIG PROCESSES [flags]: train the blocks of a model in several processes, each on a GPU of its own, or
# on CPUs where there is no GPU.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
PYTHONPATH="$here/..:${PYTHONPATH:-}" exec "${PYTHON:-python}" "$here/split_train.py" "$@"
