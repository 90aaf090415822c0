"""What the hooks share: apply and remove without a Runner, and what stands in for them elsewhere."""

import pytest
import torch
from helpers import build, detection_batch, detector_config, segmentor_config
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from torch import nn

from manpp_mm import hooks
from manpp_mm.hooks.model_hook import ModelHook, TrainingHook, remove_all
from manpp_mm.memory import TrainingStep

FCN = dict(type='FCNHead', num_classes=4, channels=8, num_convs=1)
MAKE = {
    'BlockClipHook': lambda: hooks.BlockClipHook(max_norm=1),
    'CheckpointModulesHook': lambda: hooks.CheckpointModulesHook(['neck']),
    'EarlyLossHook': lambda: hooks.EarlyLossHook(['rpn_head']),
    'GradientSwitchHook': hooks.GradientSwitchHook,
    'LocalLearningHook': hooks.LocalLearningHook,
    'MomentumHook': hooks.MomentumHook,
}


def traces(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple:
    """What hooks of any kind have left on a model and an optimizer."""
    replaced = [(name, key) for name, module in model.named_modules() for key in vars(module) if key == 'forward']
    replaced += [name for name, module in model.named_modules() if 'loss_and_predict' in vars(module)]
    registered = [len(model._forward_hooks), len(model._forward_pre_hooks)]
    registered += [len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)]
    return replaced, registered, model.backbone.step, model.backbone.gradient


def test_every_hook_says_what_it_is():
    kinds = {name: getattr(hooks, name) for name in hooks.__all__}
    changing = {name for name, kind in kinds.items() if issubclass(kind, ModelHook)}
    assert changing == MAKE.keys()
    assert kinds['AtomicCheckpointHook'].plain is CheckpointHook
    for name, kind in kinds.items():
        if name != 'AtomicCheckpointHook':
            assert issubclass(kind, TrainingHook)
            assert kind.plain is None
    local = {name for name, kind in kinds.items() if getattr(kind, 'local_only', False)}
    assert local == {
        'LocalLearningHook', 'MomentumHook', 'LocalScalarsHook', 'GradientSwitchHook', 'BlockClipHook',
    }  # fmt: skip


@pytest.mark.parametrize('name', MAKE)
def test_what_is_applied_is_removed(name):
    model = build(detector_config(), hooked=False)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    before = traces(model, wrapper.optimizer)
    for _ in range(2):
        hook = MAKE[name]()
        hook.apply(model, wrapper)
        once = traces(model, wrapper.optimizer)
        hook.apply(model, wrapper)
        assert traces(model, wrapper.optimizer) == once
        if name == 'GradientSwitchHook':
            model.backbone.switch_gradient('exact')
        else:
            assert once != before
        hook.remove(model)
        assert traces(model, wrapper.optimizer) == before


def test_a_training_step_without_a_runner():
    model = build(detector_config(), hooked=False)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    for name in MAKE:
        MAKE[name]().apply(model, wrapper)
    branch, unit = model.backbone.momentum_pairs()[0]
    before = branch.conv1.weight.clone()
    loss, log = model.parse_losses(model(**detection_batch(model), mode='loss'))
    wrapper.update_params(loss)
    assert any(key.startswith('block1.') for key in log)
    torch.testing.assert_close(branch.conv1.weight, 0.995 * before + 0.005 * unit.conv1.weight, rtol=0, atol=1e-7)
    remove_all(model)
    assert traces(model, wrapper.optimizer)[1] == [0, 0, 0, 0]


def test_a_hook_that_fails_leaves_nothing():
    model = build(detector_config(), hooked=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = traces(model, optimizer)
    with pytest.raises(ValueError, match='is trained block by block'):
        hooks.CheckpointModulesHook(['neck', 'backbone']).apply(model)
    assert traces(model, optimizer) == before
    with pytest.raises(ValueError, match='MomentumHook needs an optimizer'):
        hooks.MomentumHook().apply(model)


def test_idle_auxiliary_networks_stand_still():
    """Gradients of zero, as DDP writes them, would let weight decay and SGD's momentum move them."""
    model = build(detector_config(), hooked=False)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1))
    hooks.LocalLearningHook(check_delivery=False).apply(model, wrapper)
    for gradient, moves in (('exact', False), ('local', True)):
        model.backbone.switch_gradient(gradient)
        parameter = model.backbone.auxiliary[0].heads[0].conv_cls.weight
        before = parameter.clone()
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        wrapper.optimizer.step()
        assert torch.equal(parameter, before) != moves


def test_statistics_of_a_reconstruction_come_and_go():
    auxiliary = dict(branches=[], head=FCN, reconstruction=dict())
    model = build(segmentor_config(auxiliary=auxiliary), hooked=False)
    before = {name for name, _ in model.named_buffers()}
    hook = hooks.LocalLearningHook()
    hook.apply(model)
    assert {name for name, _ in model.named_buffers(remove_duplicate=False)} > before
    hook.remove(model)
    assert {name for name, _ in model.named_buffers(remove_duplicate=False)} == before


@pytest.mark.parametrize('place', ['custom_hooks', 'default_hooks'])
def test_a_measured_step_takes_the_configs_hooks(place):
    """With a priority, which is the Runner's, and wherever they stand."""
    hook = dict(type='CheckpointModulesHook', modules=['neck'], priority='HIGH')
    config = detector_config()
    kept = TrainingStep(config, 'local', 2, (64, 64)).counts().flops
    config[place] = [hook] if place == 'custom_hooks' else dict(sparing=hook, nothing=None)
    assert TrainingStep(config, 'local', 2, (64, 64)).counts().flops > kept
