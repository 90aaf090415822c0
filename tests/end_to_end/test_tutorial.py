"""The notebook of the documents runs, on fewer scenes and epochs."""

import os
import re
import sys
from pathlib import Path

import pytest
from processes import ROOT

nbformat = pytest.importorskip('nbformat')
nbclient = pytest.importorskip('nbclient')


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, monkeypatch):
    notebook = nbformat.read(ROOT / 'docs/tutorial.ipynb', as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == 'code')
    assert 'scenes, epochs = 400, 8' in first.source
    first.source = first.source.replace('scenes, epochs = 400, 8', 'scenes, epochs = 8, 1')
    for cell in notebook.cells:  # after one epoch nothing scores that high
        cell.source = cell.source.replace('--score-threshold 0.4', '--score-threshold 0')
    (tmp_path / 'docs').mkdir()
    for name in ('tools', 'configs'):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setenv('PATH', f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('PYTHONWARNINGS', 'ignore')
    nbclient.NotebookClient(notebook, timeout=600, resources=dict(metadata=dict(path=tmp_path / 'docs'))).execute()
    text = [
        ''.join(output.get('text', '') for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == 'code'
    ]
    pictures = [
        output for cell in notebook.cells if cell.cell_type == 'code' for output in cell.outputs
        if 'image/png' in output.get('data', {}) or 'image/jpeg' in output.get('data', {})
    ]  # fmt: skip
    assert len(pictures) == 3
    words = re.sub(r'\x1b\[[0-9;]*m', '', '\n'.join(text))  # colours
    for expected in ('8 of 8 images', 'Fitted: manpp', 'Average Precision'):
        assert expected in words
    assert 'error:' not in words and 'command not found' not in words
    assert len(list((tmp_path / 'work_dirs/tutorial').glob('shapes-*.pth'))) == 1
