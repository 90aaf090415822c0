"""Commands in a process of their own."""

import os
import socket
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def execute(*command: object, **environment: str) -> subprocess.CompletedProcess:
    """Run a command in the repository's root with one thread; the tests' modules can be imported."""
    own = dict(PYTHONWARNINGS='ignore', OMP_NUM_THREADS='1', PYTHONPATH=f'{ROOT}:{ROOT / "tests"}')
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=os.environ | own | environment, capture_output=True, text=True
    )


def free_port() -> str:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])
