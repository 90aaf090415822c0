"""Local training beside MMEngine's other hooks: nothing of it leaks into validation, copies or a second training."""

import copy
import pickle

import pytest
import torch
from helpers import build, check_parity, detector_config, segmentation_batch, segmentor_config
from mmengine.hooks import EMAHook, Hook
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from runners import coco_runner_config, runner, segmentation_runner_config

from manpp_mm.hooks import LocalLearningHook

CONFIGS = {'detector': coco_runner_config, 'segmentor': segmentation_runner_config}


class Watcher(Hook):
    """Looks at the backbone in validation, and how many forward hooks the model has in training."""

    def __init__(self) -> None:
        self.validated, self.hooks = 0, set()

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        model = runner.model
        self.hooks.add((len(model._forward_pre_hooks), len(model._forward_hooks)))

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        backbone = runner.model.backbone
        assert backbone.step is None
        self.validated += 1


@pytest.mark.parametrize('task', CONFIGS)
def test_validation_in_the_middle_of_training(tmp_path, task, monkeypatch):
    run = runner(CONFIGS[task](tmp_path, validate=True))
    watcher = Watcher()
    run.register_hook(watcher)
    network = type(run.model.backbone.auxiliary[0])
    forward = network.forward

    def only_in_training(self, *args):
        assert self.training
        assert torch.is_grad_enabled()
        return forward(self, *args)

    monkeypatch.setattr(network, 'forward', only_in_training)
    run.train()
    assert watcher.validated > 0
    assert watcher.hooks == {(1, 1)}


def test_validation_changes_nothing_of_the_training(tmp_path):
    states = []
    for validate in (False, True):
        config = coco_runner_config(tmp_path / str(validate), validate=validate)
        config.custom_hooks = [*config.custom_hooks, dict(type='ReproducibleHook')]
        run = runner(config)
        run.train()
        states.append(run.model.state_dict())
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())


def test_the_averaged_model_is_a_copy_without_hooks(tmp_path):
    config = coco_runner_config(tmp_path, validate=True)
    config.custom_hooks = [*config.custom_hooks, dict(type='EMAHook', momentum=0.5)]
    run = runner(config)
    run.train()
    ema = next(hook for hook in run.hooks if isinstance(hook, EMAHook)).ema_model.module
    assert not ema._forward_hooks
    assert not ema._forward_pre_hooks
    pickle.dumps(ema)
    own, averaged = run.model.backbone.layer1[0].conv1.weight, ema.backbone.layer1[0].conv1.weight
    assert not torch.equal(own, averaged)
    # Of the momentum branches as well: published weights are the averaged ones' trunk.
    branch = run.model.backbone.momentum_pairs()[0][0].conv2.weight
    assert not torch.equal(branch, ema.backbone.momentum_pairs()[0][0].conv2.weight)


@pytest.mark.parametrize('task', CONFIGS)
def test_a_second_training_registers_its_hooks_once(tmp_path, task):
    config = CONFIGS[task](tmp_path)
    run = runner(config)
    watcher = Watcher()
    run.register_hook(watcher)
    run.train()
    first = copy.deepcopy(run.model.state_dict())
    run.train_loop._iter = run.train_loop._epoch = 0
    run.train()
    assert watcher.hooks == {(1, 1)}
    assert not run.model._forward_hooks
    assert not run.optim_wrapper.optimizer._optimizer_step_post_hooks
    assert not run.optim_wrapper.optimizer._optimizer_step_pre_hooks
    assert not torch.equal(first['backbone.layer1.0.conv1.weight'], run.model.backbone.layer1[0].conv1.weight)


def test_test_step_between_training_steps(tmp_path):
    class TestStep(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            runner.model.eval()
            with torch.no_grad():
                assert len(runner.model.test_step(copy.deepcopy(data_batch))) == 2
            runner.model.train()

    run = runner(coco_runner_config(tmp_path))
    run.register_hook(TestStep())
    run.train()
    assert run.iter == 4


def test_conversion_to_synchronised_batch_norm_and_back_keeps_the_gradients():
    model = convert_sync_batchnorm(build(segmentor_config(), hooked=False), 'torch')
    norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.SyncBatchNorm)]
    assert any(m in norms for m in model.backbone.auxiliary.modules())
    model = revert_sync_batchnorm(model)
    model.double().train()
    LocalLearningHook().apply(model)
    check_parity(model, segmentation_batch(model))


def test_block_gradients_are_delivered_before_those_of_neck_and_heads():
    from helpers import detection_batch

    model = build(detector_config())
    loss, _ = model.parse_losses(model(**detection_batch(model), mode='loss'))
    order = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda _, name=name: order.append(name))
    loss.backward()
    local = {n for n, _ in model.named_parameters() if n.startswith(('backbone.auxiliary', 'backbone.layer1'))}
    delivered = [i for i, name in enumerate(order) if name in local]
    others = [i for i, name in enumerate(order) if name.startswith(('neck', 'rpn_head', 'roi_head'))]
    assert delivered
    assert max(delivered) < min(others)
