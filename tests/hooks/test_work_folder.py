"""One training a work folder: a second process is refused, a folder whose process died is free."""

import errno
import subprocess
import sys

import pytest
from runners import coco_runner_config, runner

from manpp_mm.hooks import work_folder
from manpp_mm.hooks.work_folder import hold_folder, release_folder

HOLD = (
    'import sys; from manpp_mm.hooks.work_folder import hold_folder; '
    'hold_folder(sys.argv[1]); print("held", flush=True); input()'
)


@pytest.fixture
def other(tmp_path):
    """Another process that trains in the folder."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, tmp_path / 'work'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().strip() == 'held'
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path, other):
    config = coco_runner_config(tmp_path)
    config.default_hooks.checkpoint = dict(type='AtomicCheckpointHook')
    half = tmp_path / 'work/epoch_1.pth.123.tmp'
    half.write_bytes(b'half')
    with pytest.raises(RuntimeError, match=rf'work is taken: process {other.pid} on .* trains there.*--work-dir'):
        runner(config).train()
    assert half.exists()  # the first one's, perhaps
    other.kill()
    other.wait()
    hold_folder(tmp_path / 'work')
    hold_folder(tmp_path / 'work')  # its own
    release_folder(tmp_path / 'work')


@pytest.mark.parametrize('reason', ['no file locks', 'no fcntl'])
def test_where_nothing_can_be_locked_a_training_goes_on(tmp_path, monkeypatch, reason):
    said = []
    monkeypatch.setattr(work_folder, 'print_log', lambda message, **_: said.append(message))
    if reason == 'no fcntl':
        monkeypatch.setattr(work_folder, 'fcntl', None)
    else:
        monkeypatch.setattr(work_folder.fcntl, 'lockf', lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, 'none')))
    hold_folder(tmp_path)
    assert 'cannot be locked' in said[0]


def test_a_folder_is_free_after_a_training(tmp_path):
    config = coco_runner_config(tmp_path)
    config.default_hooks.checkpoint = dict(type='AtomicCheckpointHook')
    runner(config).train()
    done = subprocess.run([sys.executable, '-c', HOLD, tmp_path / 'work'], input='\n', capture_output=True, text=True)
    assert done.stdout.strip() == 'held', done.stderr
