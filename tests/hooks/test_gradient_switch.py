"""GradientSwitchHook: a stretch of exact gradients inside a block-local training."""

import json

import pytest
from mmengine.hooks import Hook
from runners import (
    HOOKS,
    BatchRecorder,
    assert_same_state,
    coco_runner_config,
    in_double,
    naive_training,
    runner,
    segmentation_runner_config,
)

from manpp_mm.hooks import GradientSwitchHook


class PhaseRecorder(Hook):
    """Keeps the kind of gradient of each iteration."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.phases = ''

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.phases += runner.model.backbone.gradient[0]


def switching(config, **stretch):
    config.custom_hooks = [*HOOKS, dict(type='GradientSwitchHook', **stretch)]
    return config


def phases(config) -> str:
    run = runner(config)
    recorder = PhaseRecorder()
    run.register_hook(recorder)
    run.train()
    assert run.model.backbone.gradient == 'local'
    return recorder.phases


@pytest.mark.parametrize(
    ('stretch', 'expected'),
    [
        (dict(end=1), 'eell'),
        (dict(begin=1), 'llee'),
        (dict(begin=1, end=3, by_epoch=False), 'leel'),
        (dict(end=0.25), 'elll'),
        (dict(begin=0.75), 'llle'),
        (dict(begin=0.25, end=1), 'lell'),
        (dict(), 'eeee'),
    ],
)
def test_stretches(tmp_path, stretch, expected):
    assert phases(switching(coco_runner_config(tmp_path), **stretch)) == expected


@pytest.mark.parametrize('make', [coco_runner_config, segmentation_runner_config])
@pytest.mark.parametrize(('counts', 'stretch'), [(1, dict(end=0.5)), (2, dict(begin=0.5))])
def test_parameters_equal_a_training_that_switches_by_hand(tmp_path, make, counts, stretch):
    config = make(tmp_path, norm_eval=False)
    config.optim_wrapper.accumulative_counts = counts
    run = runner(switching(config, **stretch))
    in_double(run.model)
    recorder, phase = BatchRecorder(), PhaseRecorder()
    run.register_hook(phase)
    run.register_hook(recorder, 'LOWEST')
    run.train()
    expected = naive_training(
        config,
        recorder.start,
        [[batch] for batch in recorder.batches],
        double=True,
        accumulative_counts=counts,
        exact=lambda iteration: phase.phases[iteration] == 'e',
    )
    assert set(phase.phases) == {'e', 'l'}
    assert_same_state(run.model.state_dict(), expected, recorder.start, 1e-10)


def test_the_log_shows_a_blocks_loss_while_it_has_one(tmp_path):
    config = switching(coco_runner_config(tmp_path), begin=2, end=3, by_epoch=False)
    config.default_hooks.logger.interval = 1
    config.log_level = 'INFO'
    run = runner(config)
    run.train()
    records = [
        json.loads(line) for line in next(tmp_path.glob('work/*/vis_data/scalars.json')).read_text().splitlines()
    ]
    assert ['block0.loss_cls' in record for record in records] == [True, True, False, True]
    assert ['loss_rpn_bbox' in record for record in records] == [True] * 4
    text = next(tmp_path.glob('work/*/*.log')).read_text()
    assert text.count('on, the backbone trains with') == 2


def test_resume_keeps_the_phase(tmp_path):
    config = switching(segmentation_runner_config(tmp_path), begin=1, end=3, by_epoch=False)
    config.default_hooks.checkpoint.update(interval=2, by_epoch=False)
    assert phases(config) == 'leel'
    config.load_from, config.resume = str(tmp_path / 'work/iter_2.pth'), True
    config.experiment_name += 'resumed'
    assert phases(config) == 'el'


@pytest.mark.parametrize(
    ('stretch', 'message'),
    [
        (dict(begin=3, end=2), 'end=2 is not after begin=3'),
        (dict(begin=0.5, end=0.5), 'end=0.5 is not after begin=0.5'),
        (dict(begin=-1), 'begin=-1 must be a number of epochs'),
        (dict(end=1.5), 'end=1.5 must be a number of epochs'),
        (dict(end='late'), "end='late' must be a number of epochs"),
    ],
)
def test_bad_stretches(stretch, message):
    with pytest.raises(ValueError, match=message):
        GradientSwitchHook(**stretch)


@pytest.mark.parametrize(
    ('stretch', 'message'),
    [
        (dict(begin=2), r'begin=2 is past the end of the schedule \(4 iterations\)'),
        (dict(begin=4, by_epoch=False), 'begin=4 is past the end'),
        (dict(end=3), 'end=3 is past the end'),
        (dict(begin=1, end=0.25), 'end=0.25 is not after begin=1'),
    ],
)
def test_stretches_outside_the_schedule(tmp_path, stretch, message):
    with pytest.raises(ValueError, match=message):
        runner(switching(coco_runner_config(tmp_path), **stretch)).train()


def test_what_cannot_be_switched(tmp_path):
    with pytest.raises(ValueError, match="remove model.backbone.gradient='exact'"):
        runner(switching(coco_runner_config(tmp_path, gradient='exact'))).train()
    with pytest.raises(ValueError, match='set by_epoch=False to count iterations'):
        runner(switching(segmentation_runner_config(tmp_path), end=1)).train()


@pytest.mark.parametrize('shipped', [False, True])
def test_exact_throughout_with_and_without_hooks(tmp_path, shipped):
    config = coco_runner_config(tmp_path, gradient='exact')
    names = ('LocalLearningHook', 'MomentumHook', 'LocalScalarsHook', 'FiniteLossHook', 'ReproducibleHook')
    config.custom_hooks = [dict(type=name) for name in names] if shipped else []
    config.default_hooks.logger.interval = 1
    run = runner(config)
    run.train()
    assert run.iter == 4
