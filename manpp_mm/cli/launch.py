"""The processes of a split training: their start by torchrun's launcher, and their end."""

import gc
import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import NoReturn

import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from ..split.messages import PeerLostError
from .errors import FLAG, in_a_line

_LOST = 75
"""Exit status of a process that ends because another one has ended."""

_FOLDER = 'MANPP_SPLIT_FOLDER'

_PATIENCE = timedelta(hours=1)
"""How long processes wait for one another at the start."""


def launched() -> bool:
    """Return whether :func:`launch` has started this process."""
    return _FOLDER in os.environ


def temporary_folder() -> str:
    """Return a folder that lasts until all processes of this machine have ended."""
    return os.environ[_FOLDER]


def launch(module: str, processes: int, arguments: Sequence[str]) -> None:
    """Start a module in several processes and wait for them; exit with status 1 if one fails.

    Several machines are set as for ``dist_train.sh``, by ``NNODES``, ``NODE_RANK``, ``MASTER_ADDR`` and ``PORT``.

    Args:
        module: The module to run.
        processes: The number of processes on this machine.
        arguments: The module's command line.
    """
    machines = os.environ.get('NNODES', '1')
    meeting = ['--standalone']
    if machines != '1':
        meeting = [
            f'--nnodes={machines}',
            f'--node_rank={os.environ.get("NODE_RANK", "0")}',
            f'--master_addr={os.environ.get("MASTER_ADDR", "127.0.0.1")}',
            f'--master_port={os.environ.get("PORT", "29500")}',
        ]
    for name in ('torch.distributed.elastic', 'torch.distributed.run'):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    try:
        with tempfile.TemporaryDirectory(prefix='manpp_split_') as os.environ[_FOLDER]:
            run(parse_args([*meeting, f'--nproc_per_node={processes}', '--module', module, *arguments]))
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        sys.exit(_words(codes))
    except (SignalException, KeyboardInterrupt):
        sys.exit('interrupted; --resume continues from the latest checkpoint')


def _words(codes: dict[int, int]) -> 'str | int':
    """Return what to say about failed processes, by their exit statuses; 1 if one has said it itself."""
    if any(code > 0 and code != _LOST for code in codes.values()):
        return 1
    way_out = '--resume continues from the latest checkpoint'
    # The launcher terminates (15) those that are left.
    killed = {rank: -code for rank, code in codes.items() if code < 0 and code != -signal.SIGTERM}
    for rank, number in killed.items():
        return f'error: process {rank} was killed by signal {number} (9: possibly out of memory); {way_out}'
    return f'error: another process of this training has ended; {way_out}'


def run_worker(main: Callable[[dist.Store, int, int], None]) -> NoReturn:
    """Run a process and end it.

    An error is printed by the first process that has one, because most errors, such as a wrong config, occur in all. A
    process ends silently if another one has ended.

    Args:
        main: Takes the store at which the processes meet, the number of this one, and their number.
    """
    store, number, size = next(iter(dist.rendezvous('env://')))
    store.set_timeout(_PATIENCE)
    try:
        main(store, number, size)
    except KeyboardInterrupt:
        _exit(130)
    except PeerLostError:
        _exit(_LOST)
    except Exception as error:
        if _first(store):
            if FLAG in sys.argv:
                traceback.print_exc()
            print(f'error: {in_a_line(error)}', file=sys.stderr)
        _exit(1)
    gc.collect()  # ends the loader's workers
    _exit(0)


def _first(store: dist.Store) -> bool:
    """Return whether no other process has had an error."""
    try:
        return store.add('manpp/errors', 1) == 1
    except Exception:  # the machine that holds the store has ended
        return False


def _exit(status: int) -> NoReturn:
    # Threads that still wait for messages would abort the interpreter's shutdown.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
