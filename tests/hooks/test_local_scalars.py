import pytest
import torch
from helpers import build, detector_config
from runners import coco_runner_config, runner

from manpp_mm.hooks.local_scalars_hook import local_scalars
from manpp_mm.memory import plot_training, read_scalars


def test_values_by_hand():
    model = build(detector_config())
    assert local_scalars(model) == {
        'block0.scaling': 1.0,
        'block0.momentum_distance': 0.0,
        'block1.scaling': 1.0,
        'block1.momentum_distance': 0.0,
    }
    branch, unit = model.backbone.momentum_pairs()[1]
    with torch.no_grad():
        model.backbone.auxiliary[0].branches.delta.fill_(0.25)
        for p, q in zip(branch.parameters(), unit.parameters(), strict=True):
            p.copy_(0.5 * q)
    found = local_scalars(model)
    assert found['block0.scaling'] == 1.25
    assert found['block1.momentum_distance'] == pytest.approx(0.5)


def test_members_without_them_log_none():
    auxiliary = dict(
        branches=['learnable'], head=dict(type='FCOSHead', num_classes=3, feat_channels=32, stacked_convs=1)
    )
    assert local_scalars(build(detector_config(auxiliary=auxiliary))) == {}


def test_they_reach_the_log_file_and_its_plot(tmp_path):
    config = coco_runner_config(tmp_path)
    config.custom_hooks = [*config.custom_hooks, dict(type='LocalScalarsHook')]
    config.default_hooks.logger.interval = 2
    run = runner(config)
    run.train()
    curves = read_scalars(tmp_path / 'work')
    for block in range(2):
        assert [step for step, _ in curves[f'block{block}.scaling']] == [2, 4]
        assert curves[f'block{block}.momentum_distance'][-1][1] > 0
        assert len(curves[f'block{block}.loss_cls']) == 2
    expected = local_scalars(run.model)
    assert curves['block1.momentum_distance'][-1][1] == pytest.approx(expected['block1.momentum_distance'], rel=1e-4)
    plot_training(curves, tmp_path / 'curves.png')
    assert (tmp_path / 'curves.png').read_bytes()[:4] == b'\x89PNG'


def test_a_folder_without_scalars(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'has no vis_data/scalars.json'):
        read_scalars(tmp_path)


def test_a_training_that_was_not_local(tmp_path):
    (tmp_path / 'vis_data').mkdir()
    (tmp_path / 'vis_data/scalars.json').write_text('{"loss": 1.0, "loss_cls": 1.0, "step": 1, "iter": 1}\n')
    with pytest.raises(ValueError, match='not block-local'):
        plot_training(read_scalars(tmp_path), tmp_path / 'curves.png')
