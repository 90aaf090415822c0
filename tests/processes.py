"""Commands in a process of their own, and tools in this one."""

import importlib.util
import os
import socket
import subprocess
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]


def execute(*command: object, **environment: str) -> subprocess.CompletedProcess:
    """Run a command in the repository's root with one thread; the tests' modules can be imported."""
    own = dict(PYTHONWARNINGS='ignore', OMP_NUM_THREADS='1', PYTHONPATH=f'{ROOT}:{ROOT / "tests"}')
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=os.environ | own | environment, capture_output=True, text=True
    )


def load_tool(program: str) -> ModuleType:
    """A tool as a module, ``'tools/train.py'`` say."""
    spec = importlib.util.spec_from_file_location('tool', ROOT / program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def free_port() -> str:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])
