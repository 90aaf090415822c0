"""A tool's error is one line."""

import socket
import sys
from urllib.error import URLError

import pytest
import torch
from processes import execute

from manpp_mm.cli.errors import in_a_line, run


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (ValueError('a.json is\n  no JSON'), 'a.json is no JSON'),
        (FileNotFoundError('no a.json'), 'no a.json'),
        (KeyError('mask'), "KeyError: 'mask' (--traceback shows where)"),
        (IndexError(''), 'IndexError:  (--traceback shows where)'),
        (
            RuntimeError(
                'Caught ValueError in DataLoader worker process 0.\nOriginal Traceback:\n  x\nValueError: b.png'
            ),
            'in a loader worker: ValueError: b.png',
        ),
        (URLError('no route'), '<urlopen error no route>: a file could not be fetched; without a network, set its'),
        (torch.OutOfMemoryError('CUDA out of memory.\nTried'), 'CUDA out of memory. Train with --memory auto, or use'),
    ],
)
def test_in_a_line(error, line):
    found = in_a_line(error)
    assert found.startswith(line)
    assert '\n' not in found


def test_run_ends_with_the_line(monkeypatch):
    def main() -> None:
        raise KeyError('mask')

    monkeypatch.setattr(sys, 'argv', ['tool'])
    with pytest.raises(SystemExit, match="error: KeyError: 'mask'"):
        run(main)
    monkeypatch.setattr(sys, 'argv', ['tool', '--traceback'])
    with pytest.raises(KeyError, match='mask'):
        run(main)


@pytest.mark.parametrize('tool', ['dist_train.sh', 'dist_test.sh'])
def test_a_port_that_is_taken(tool):
    with socket.socket() as taken:
        taken.bind(('', 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = execute(f'tools/{tool}', 'a.py', 2, 2, PORT=str(port), PYTHON=sys.executable)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f'error: port {port} is taken, possibly by another training: set another one, PORT=29501'
    )
