"""A lock that allows one training per work folder."""

import errno
import logging
import os
import socket
from datetime import datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO

from mmengine.logging import print_log

fcntl: ModuleType | None
try:
    fcntl = import_module('fcntl')
except ImportError:  # Windows
    fcntl = None

_LOCK = 'training.lock'
_held: dict[Path, IO] = {}


def hold_folder(folder: 'str | Path') -> None:
    """Lock a work folder for this process, until :func:`release_folder` or its end; it may lock it again.

    The operating system releases the lock however the process ends. Two trainings in one folder would remove each
    other's half-written checkpoints and mix their logs. If the system or the file system does not support such locks
    (Windows, some network file systems), a warning is logged.

    Raises:
        RuntimeError: Another process holds the lock; the message names it.
    """
    path = Path(folder).resolve() / _LOCK
    if path in _held:
        return
    if fcntl is None:
        _warn(folder, 'this system has no file locks')
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # The lock belongs to the process; loader workers do not inherit it.
    file = path.open('a+')
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or 'another process'
        file.close()
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            _warn(folder, str(error))
            return
        raise RuntimeError(
            f'{folder} is taken: {holder} trains there. Wait for it, stop it, or set another --work-dir'
        ) from error
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}, since {datetime.now():%Y-%m-%d %H:%M:%S},\n')
    file.flush()
    _held[path] = file


def release_folder(folder: 'str | Path') -> None:
    """Unlock a work folder."""
    file = _held.pop(Path(folder).resolve() / _LOCK, None)
    if file is not None:
        file.truncate(0)
        file.close()


def _warn(folder: 'str | Path', reason: str) -> None:
    print_log(
        f'{folder} cannot be locked ({reason}): make sure that no second training runs in it.',
        logger='current',
        level=logging.WARNING,
    )
