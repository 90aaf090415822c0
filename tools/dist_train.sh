#!/usr/bin/env bash
# dist_train.sh CONFIG PROCESSES [train.py's flags]: train on several GPUs, or on CPU processes where there is no GPU.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG PROCESSES [flags of train.py]" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
# SO_REUSEADDR: the port of a training that has just ended counts as free.
bind="import socket; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('', ${PORT:-29500}))"
if [ "${NODE_RANK:-0}" = 0 ] && ! "${PYTHON:-python}" -c "$bind" 2>/dev/null; then
    echo "error: port ${PORT:-29500} is taken, possibly by another training: set another one, PORT=29501 $0 ..." >&2
    exit 1
fi
PYTHONPATH="$here/..:${PYTHONPATH:-}" "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$2" "$here/train.py" "$1" --launcher pytorch "${@:3}"
