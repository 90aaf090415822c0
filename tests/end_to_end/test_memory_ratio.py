"""Peak live bytes of the shipped configs at a quarter of the resolution; full size is tools/benchmark.py's."""

from pathlib import Path

import pytest
from mmengine.config import Config

from manpp_mm.memory import TrainingStep, measure
from manpp_mm.memory.footprint import footprint

CONFIGS = Path(__file__).parents[2] / 'configs'


def ratios(name: str, modes: list[str], size: tuple[int, int]) -> dict[str, float]:
    """Peaks of a config's modes beside end-to-end's, two images of a size."""
    found = measure(Config.fromfile(CONFIGS / name), ['end_to_end', *modes], 2, size, repeats=0)
    return {mode: found[mode].peak_bytes / found['end_to_end'].peak_bytes for mode in modes}


@pytest.mark.slow
def test_faster_rcnn():
    floor, lowest = 'frozen_heads_checkpointed', 'local_checkpointed_heads_checkpointed'
    modes = ['end_to_end_checkpointed', 'local', 'local_checkpointed', 'frozen', floor, lowest]
    ratio = ratios('faster_rcnn_r50_manpp_coco.py', modes, (200, 336))
    assert ratio['local_checkpointed'] < ratio['local'] < ratio['end_to_end_checkpointed'] < 1
    assert ratio['frozen'] < ratio['local'] <= 0.78
    assert ratio[floor] < ratio[lowest]  # with the RPN's loss early in both; plain `frozen` runs without


@pytest.mark.slow
def test_deeplabv3():
    ratio = ratios('deeplabv3_r101_manpp_cityscapes.py', ['local', 'local_checkpointed', 'frozen'], (128, 256))
    assert ratio['frozen'] < ratio['local_checkpointed'] < ratio['local'] <= 0.65


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'size'),
    [
        ('fcos_r50_manpp_coco.py', (200, 336)),
        ('pspnet_r50_manpp_cityscapes.py', (128, 256)),
        ('deeplabv3plus_r101_manpp_cityscapes.py', (128, 256)),
    ],
)
def test_predicted_peaks(name, size):
    config = Config.fromfile(CONFIGS / name)
    for mode in ('end_to_end', 'local'):
        predicted = footprint(config, mode).peak_at(2, size)
        real = TrainingStep(config, mode, 2, size, full_regions=True)
        assert predicted == pytest.approx(real.peak_bytes(), rel=0.1), mode
