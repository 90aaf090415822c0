"""Peak live bytes of the shipped configs at half resolution; full size is tools/benchmark.py's."""

from pathlib import Path

import pytest
from mmengine.config import Config

from manpp_mm.profiling import measure

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.mark.slow
def test_faster_rcnn():
    config = Config.fromfile(CONFIGS / 'faster_rcnn_r50_manpp_coco.py')
    modes = ['end_to_end', 'end_to_end_checkpointed', 'local', 'local_checkpointed', 'frozen']
    peak = {mode: found.peak_bytes for mode, found in measure(config, modes, 2, (400, 672), repeats=0).items()}
    ratio = {mode: value / peak['end_to_end'] for mode, value in peak.items()}
    assert ratio['frozen'] < ratio['local_checkpointed'] < ratio['local'] < ratio['end_to_end_checkpointed']
    assert ratio['local'] <= 0.62
