"""Detectors that change their config while they are built: their models are built more than once."""

import copy
import json
import sys
from functools import partial
from pathlib import Path

import pytest
from helpers import DETRS, detector_config, detr_config
from mmengine.config import Config
from processes import execute
from runners import HOOKS, write_coco

from manpp_mm.comparison.variants import stages_to_freeze
from manpp_mm.memory import TrainingStep
from manpp_mm.memory.predict import own_cuts
from manpp_mm.memory.profile import trained_units
from manpp_mm.publish import check_strict, plain_config


def deformable_convolutions() -> Config:
    """A config whose backbone forgets ``fallback_on_stride`` while it is built."""
    config = detector_config(depth=50, dcn=dict(type='DCN', fallback_on_stride=True), stage_with_dcn=[True] * 4)
    config.model.neck.in_channels = [64, 128, 256, 512]
    return config


BUILDERS = {
    'deformable convolutions': deformable_convolutions,
    **{name: partial(detr_config, name) for name in DETRS},
}


@pytest.mark.parametrize('name', BUILDERS)
def test_what_builds_a_model_leaves_its_config(name):
    config = BUILDERS[name]()
    expected = copy.deepcopy(config.model)
    assert own_cuts(config) == [(1, 1), (2, 1)]
    assert config.model == expected
    assert len(trained_units(config)) > 4
    assert config.model == expected
    for mode in ('local', 'exact', 'end_to_end'):
        TrainingStep(config, mode, 1, (64, 64))
        assert config.model == expected, mode


@pytest.mark.parametrize('name', BUILDERS)
def test_a_published_config_is_as_it_was_before_the_weights_were_tried(name):
    config = BUILDERS[name]()
    weights = TrainingStep(config, 'end_to_end', 1, (64, 64)).model.state_dict()
    plain = plain_config(config)
    expected = copy.deepcopy(plain.model)
    check_strict(plain, weights, Path('a.pth'))
    assert plain.model == expected


def test_counting_frozen_stages_leaves_the_backbone():
    config = deformable_convolutions()
    expected = copy.deepcopy(config.model.backbone)
    assert stages_to_freeze(config, 'front_frozen') == 2
    assert config.model.backbone == expected


@pytest.mark.slow
@pytest.mark.parametrize('name', DETRS)
def test_trained_by_the_tool(tmp_path, name):
    write_coco(tmp_path)
    config = detr_config(name)
    config.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    config.train_dataloader.dataset.update(
        data_root=str(tmp_path),
        metainfo=dict(classes=('a', 'b', 'c')),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(64, 64)),
            dict(type='PackDetInputs'),
        ],
    )
    for key in ('val', 'test'):
        for part in ('cfg', 'dataloader', 'evaluator'):
            config[f'{key}_{part}'] = None
    config.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    config.default_hooks.logger.interval = 1
    config.custom_hooks = HOOKS
    config.custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
    config.dump(tmp_path / 'config.py')
    done = execute(sys.executable, 'tools/train.py', tmp_path / 'config.py', '--work-dir', tmp_path / 'work')
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert 'in float32 is predicted to peak at' in done.stdout
    lines = next((tmp_path / 'work').glob('*/vis_data/scalars.json')).read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    assert len(steps) == 2
    assert all({'block0.loss_cls', 'block1.loss_cls', 'loss_bbox'} <= step.keys() for step in steps)
