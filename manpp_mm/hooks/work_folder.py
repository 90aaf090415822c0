"""One training a work folder."""

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
    """Take a work folder for this process, until :func:`release_folder` or its end; it may take it again.

    The lock is the operating system's: however a process ends, it is gone. Two trainings in one folder would remove
    each other's half-written checkpoints and mix their logs. Where the system or the folder's file system knows no such
    locks (Windows, some network file systems), a warning says so.

    Raises:
        RuntimeError: Another process holds it; the message names that.
    """
    path = Path(folder).resolve() / _LOCK
    if path in _held:
        return
    if fcntl is None:
        _warn(folder, 'this system knows no locks of files')
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # A lock of the whole process, which loader workers do not inherit.
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
            f'{folder} is taken: {holder} trains there. Wait for it or stop it, or give another --work-dir'
        ) from error
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}, since {datetime.now():%Y-%m-%d %H:%M:%S},\n')
    file.flush()
    _held[path] = file


def release_folder(folder: 'str | Path') -> None:
    """Give a work folder back."""
    file = _held.pop(Path(folder).resolve() / _LOCK, None)
    if file is not None:
        file.truncate(0)
        file.close()


def _warn(folder: 'str | Path', reason: str) -> None:
    print_log(
        f'{folder} cannot be locked ({reason}): see to it yourself that no second training runs in it.',
        logger='current',
        level=logging.WARNING,
    )
