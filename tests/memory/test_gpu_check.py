"""``tools/gpu_check.py`` without a GPU: what it keeps, what it goes on with, where it stops."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from manpp_mm.memory import Measurement

ROOT = Path(__file__).parents[2]
FOUND = Measurement(100, 10, 2, 1000, 0.5, 0.1, 120, 0.4)


@pytest.fixture
def tool(monkeypatch):
    spec = importlib.util.spec_from_file_location('gpu_check', ROOT / 'tools/gpu_check.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'a card')
    monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: None)
    monkeypatch.setattr(torch.backends.cudnn, 'version', lambda: 9)
    monkeypatch.setattr(tool.MMLogger, 'get_instance', lambda *_, **__: None)
    tool.calls = []

    def measure(config, modes, batch, size, repeats, device, amp):
        tool.calls.append((batch, amp))
        return {str(mode): FOUND for mode in modes}

    monkeypatch.setattr(tool, 'measure', measure)
    return tool


def run(tool, monkeypatch, out: Path, *flags: str) -> None:
    monkeypatch.setattr(sys, 'argv', ['gpu_check.py', '--skip-tests', '--commit', 'abc', '--out', str(out), *flags])
    tool.main()


def test_it_goes_on_where_it_was(tool, monkeypatch, tmp_path):
    run(tool, monkeypatch, tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == len(tool.calls) == 5 * 2 * 2
    figures = json.loads((tmp_path / 'faster_rcnn_r50_manpp_coco-8x800x1333-float16.json').read_text())
    assert (figures['device'], figures['commit'], figures['input']) == ('a card', 'abc', [8, 800, 1333])
    assert figures['modes']['local'] == FOUND.as_dict()
    files[3].unlink()
    other = json.loads(files[4].read_text()) | dict(commit='older')
    files[4].write_text(json.dumps(other))
    tool.calls.clear()
    run(tool, monkeypatch, tmp_path)
    assert len(tool.calls) == 2  # the one that is missing and the one of another commit
    assert json.loads(files[4].read_text())['commit'] == 'abc'


def test_it_stops_in_time_and_says_what_is_missing(tool, monkeypatch, tmp_path):
    clock = iter(range(0, 10_000, 30))
    monkeypatch.setattr(tool.time, 'monotonic', lambda: next(clock))
    with pytest.raises(SystemExit, match=r'files are missing; run this again to continue: .*float16\.json'):
        run(tool, monkeypatch, tmp_path, '--minutes', '2')
    assert 0 < len(list(tmp_path.iterdir())) < 20


def test_without_a_gpu(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit, match='there is no GPU'):
        run(tool, monkeypatch, tmp_path)


def test_failing_tests_are_told_at_the_end(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(tool, 'tests', lambda path, where: False)
    monkeypatch.setattr(sys, 'argv', ['gpu_check.py', '--out', str(tmp_path)])
    with pytest.raises(SystemExit, match='tests failed'):
        tool.main()
    assert len(list(tmp_path.iterdir())) == 20  # the figures are there all the same
