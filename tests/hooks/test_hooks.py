import copy
import pickle

import pytest
import torch
from helpers import FCOS, build, detection_batch, detector_config
from mmengine.hooks import EMAHook, Hook
from runners import HOOKS, coco_runner_config, runner, segmentation_runner_config

from manpp_mm.hooks import LocalLearningHook, MomentumHook
from manpp_mm.step import Step


class Recorder(Hook):
    """Keeps copies of the branches and their sources at each iteration."""

    def __init__(self) -> None:
        self.states: list[tuple[torch.Tensor, torch.Tensor]] = []

    def record(self, backbone):
        branch, unit = backbone.momentum_pairs()[0]
        self.states.append((branch.conv2.weight.clone(), unit.conv2.weight.clone()))

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if not self.states:
            self.record(runner.model.backbone)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.record(runner.model.backbone)


def test_training_moves_everything_and_the_branches_follow(tmp_path):
    run = runner(coco_runner_config(tmp_path))
    recorder = Recorder()
    run.register_hook(recorder)
    run.train()
    start, *rest = recorder.states
    assert torch.equal(*start)  # synced after initialisation
    assert len(rest) == 4
    expected = start[0]
    for branch, unit in rest:
        expected = 0.9 * expected + 0.1 * unit
        torch.testing.assert_close(branch, expected, rtol=1e-6, atol=1e-7)
        assert not torch.equal(branch, unit)


def test_one_block_is_end_to_end_training(tmp_path):
    run = runner(coco_runner_config(tmp_path, cuts=None, local_blocks=1))
    before = run.model.backbone.layer1[0].conv1.weight.clone()
    run.train()
    assert not torch.equal(before, run.model.backbone.layer1[0].conv1.weight)


def test_momentum_branches_stand_still_in_forward():
    model = build(detector_config())
    before = [p.clone() for branch, _ in model.backbone.momentum_pairs() for p in branch.parameters()]
    loss, _ = model.parse_losses(model(**detection_batch(model), mode='loss'))
    loss.backward()
    after = [p for branch, _ in model.backbone.momentum_pairs() for p in branch.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_momentum_follows_the_optimizer_step_under_accumulation(tmp_path):
    config = coco_runner_config(tmp_path)
    config.optim_wrapper.accumulative_counts = 2
    run = runner(config)
    recorder = Recorder()
    run.register_hook(recorder)
    run.train()
    moved = [not torch.equal(a[0], b[0]) for a, b in zip(recorder.states, recorder.states[1:], strict=False)]
    assert moved == [False, True, False, True]


def test_resume_leaves_the_branches_alone(tmp_path):
    config = coco_runner_config(tmp_path)
    first = runner(config)
    first.train()
    branch = first.model.backbone.momentum_pairs()[0][0].conv2.weight.clone()
    config = copy.deepcopy(config)
    config.merge_from_dict(dict(resume=True, experiment_name='resumed', visualizer=dict(name='resumed')))
    config.train_cfg.max_epochs = 3
    second = runner(config)
    recorder = Recorder()
    second.register_hook(recorder)
    second.train()
    assert torch.equal(recorder.states[0][0], branch)
    assert not torch.equal(*recorder.states[0])
    assert len(recorder.states) == 3


def test_nothing_is_left_on_the_model_after_training(tmp_path):
    run = runner(coco_runner_config(tmp_path))
    run.train()
    assert not run.model._forward_pre_hooks
    assert not run.model._forward_hooks
    pickle.dumps(run.model)


def test_a_training_after_an_interrupted_one_starts_clean(tmp_path):
    config = coco_runner_config(tmp_path)
    config.custom_hooks = [dict(type='EMAHook'), *HOOKS]
    run = runner(config)

    def interrupt(*_):
        raise KeyboardInterrupt

    handle = run.model.neck.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    handle.remove()
    # torch runs no hook after a KeyboardInterrupt: these are left over.
    assert len(run.model._forward_hooks) == 1
    assert run.model.backbone.step.gradients
    run.call_hook('before_run')
    assert not run.model._forward_hooks
    assert run.model.backbone.step is None
    run.train()
    ema = next(hook for hook in run.hooks if isinstance(hook, EMAHook)).ema_model.module
    assert not ema._forward_hooks
    assert ema.backbone.step is None
    assert not run.model._forward_hooks
    assert not run.optim_wrapper.optimizer._optimizer_step_pre_hooks
    assert not run.optim_wrapper.optimizer._optimizer_step_post_hooks
    assert run.epoch == 2


def test_a_failed_forward_does_not_leak_into_the_next():
    model = build(detector_config())
    data = detection_batch(model)
    original, model.loss = model.loss, lambda *_: (_ for _ in ()).throw(ValueError('broken'))
    with pytest.raises(ValueError, match='broken'):
        model(**data, mode='loss')
    model.loss = original
    assert model.backbone.step is None
    losses = model(**data, mode='loss')
    assert sum(name.startswith('block0.') for name in losses) == 3


def test_without_gradients_the_model_is_the_parents():
    model = build(detector_config())
    with torch.no_grad():
        losses = model(**detection_batch(model), mode='loss')
    assert not any(name.startswith('block') for name in losses)
    model.eval()
    assert len(model(**detection_batch(model), mode='predict')) == 2


class TestBadInput:
    def train(self, tmp_path, change, **backbone):
        config = coco_runner_config(tmp_path, **backbone)
        change(config)
        runner(config).train()

    def test_momentum_branches_without_their_hook(self, tmp_path):
        with pytest.raises(ValueError, match=r"add dict\(type='MomentumHook'\)"):
            self.train(tmp_path, lambda c: c.merge_from_dict(dict(custom_hooks=HOOKS[:1])))

    def test_backbone_without_its_hook(self, tmp_path):
        with pytest.raises(RuntimeError, match='LocalLearningHook'):
            self.train(tmp_path, lambda c: c.merge_from_dict(dict(custom_hooks=HOOKS[1:])))

    @pytest.mark.parametrize('hooks', [HOOKS, HOOKS[1:]])
    def test_hook_without_a_local_backbone(self, tmp_path, hooks):
        def change(config):
            config.custom_hooks = hooks
            config.model.backbone.type = 'ResNet'
            for key in ('cuts', 'auxiliary'):
                config.model.backbone.pop(key)

        with pytest.raises(ValueError, match='has no local backbone'):
            self.train(tmp_path, change)

    def test_teacher_and_student(self, tmp_path):
        def change(config):
            config.model = dict(
                type='SemiBaseDetector',
                detector=config.model,
                semi_train_cfg=dict(freeze_teacher=True),
                data_preprocessor=config.model.data_preprocessor,
            )

        with pytest.raises(ValueError, match="SemiBaseDetector has its local backbone at 'student.backbone'"):
            self.train(tmp_path, change)

    def test_classes_that_differ_from_the_data_sets(self, tmp_path):
        auxiliary = dict(head=dict(FCOS, num_classes=80))
        with pytest.raises(ValueError, match=r'num_classes=80 \(block 0\).* has 3 classes: a, b, c'):
            self.train(tmp_path, lambda c: None, auxiliary=auxiliary)

    def test_momentum_outside_its_range(self):
        with pytest.raises(ValueError, match='MomentumHook: momentum=1.5'):
            MomentumHook(momentum=1.5)

    def test_gradients_that_do_not_arrive(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Step, 'delivered_losses', lambda step: {})  # a wrapper that loses the delivery
        for check in (True, False):
            config = coco_runner_config(tmp_path / str(check))
            config.custom_hooks = [dict(type='LocalLearningHook', check_delivery=check), HOOKS[1]]
            run = runner(config)
            if check:
                with pytest.raises(RuntimeError, match=r'received no gradient .*conv1.weight.*check_delivery=False'):
                    run.train()
            else:
                run.train()


def test_hooks_are_registered():
    from mmengine.registry import HOOKS as REGISTRY

    assert REGISTRY.get('LocalLearningHook') is LocalLearningHook
    assert REGISTRY.get('MomentumHook') is MomentumHook


@pytest.mark.parametrize(
    ('cuts', 'places', 'warned'),
    [
        ([(1, 1), (2, 0)], [2], False),
        ([(1, 1), (2, 1)], [2], True),
        ([(1, 1), (2, 0)], [2, 0], True),
        ([(1, 1), (2, 0)], [-1], False),
    ],
)
def test_an_auxiliary_head_on_the_last_block_is_not_warned_about(tmp_path, monkeypatch, cuts, places, warned):
    config = segmentation_runner_config(tmp_path, cuts=cuts)
    channels = [16, 32, 64, 128]
    head = dict(type='FCNHead', num_classes=4, channels=8, num_convs=1, norm_cfg=dict(type='BN'))
    config.model.auxiliary_head = [head | dict(in_index=place, in_channels=channels[place]) for place in places]
    run = runner(config)
    found = []
    monkeypatch.setattr(run.logger, 'warning', lambda text, *_: found.append(text))
    run.train()
    assert any('sees detached features' in text for text in found) == warned
