"""EarlyLossHook: the same step, every parameter and buffer, with less memory."""

import copy

import pytest
import torch
from helpers import (
    assert_same_gradients,
    build,
    detection_batch,
    detector_config,
    gradients,
)
from hooked import replaced, two_stage
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.structures import InstanceData
from runners import HOOKS, coco_runner_config, runner

from manpp_mm.backbones import plain_model
from manpp_mm.hooks import CheckpointModulesHook, EarlyLossHook
from manpp_mm.memory import LiveBytes


@pytest.mark.parametrize('checkpointed', [False, True])
@pytest.mark.parametrize('kind', ['end-to-end', 'exact', 'local'])
def test_the_rpns_loss_taken_early(kind, checkpointed):
    config = two_stage()
    config.model.rpn_head.feat_channels = 256
    if kind == 'end-to-end':
        config.model = plain_model(config)
    elif kind == 'exact':
        config.model.backbone.gradient = 'exact'
    model = build(config, hooked=kind == 'local').double()
    data = detection_batch(model)
    alive = []
    model.roi_head.bbox_head.register_forward_pre_hook(lambda *_: alive.append(live.current))

    start = copy.deepcopy(model.state_dict())

    def run() -> dict:
        torch.manual_seed(1)
        model.zero_grad()
        model.load_state_dict(start)
        loss, log = model.parse_losses(model(**data, mode='loss'))
        loss.backward()
        return log

    with LiveBytes() as live:
        plain = run()
    expected, moved = gradients(model), copy.deepcopy(dict(model.named_buffers()))
    early = EarlyLossHook(['rpn_head'])
    early.apply(model)
    if checkpointed:
        CheckpointModulesHook(['neck', 'rpn_head']).apply(model)
    with LiveBytes() as live:
        logged = run()
    assert_same_gradients(gradients(model), expected, 1e-10)
    assert all(torch.equal(value, moved[key]) for key, value in model.named_buffers())
    assert not torch.equal(moved['neck.fpn_convs.0.bn.running_mean'], start['neck.fpn_convs.0.bn.running_mean'])
    assert {name: value.item() for name, value in logged.items()} == pytest.approx(
        {name: value.item() for name, value in plain.items()}, rel=1e-12
    )
    hidden = 2 * 256 * 8 * sum(side**2 for side in (16, 8, 4, 2, 1))  # float64, the RPN's one hidden layer
    assert alive[0] - alive[1] > 0.5 * hidden
    early.remove(model)
    assert replaced(model) == ({'neck', 'rpn_head'} if checkpointed else set())


def unscaled_gradient(model, data) -> torch.Tensor:
    """In float32 the gradient of the RPN's classification loss of weight 1."""
    head = model.rpn_head
    weight, head.loss_cls.loss_weight = head.loss_cls.loss_weight, 1.0
    torch.manual_seed(1)
    model.parse_losses(dict(loss=model(**data, mode='loss')['loss_rpn_cls']))[0].backward()
    head.loss_cls.loss_weight = weight
    return head.rpn_conv.weight.grad.clone()


def test_float16_losses_taken_early_do_not_underflow():
    config = detector_config()
    config.model = plain_model(config)
    model = build(config, hooked=False)
    model.rpn_head.loss_bbox.loss_weight = 0.0
    model.rpn_head.loss_cls.loss_weight = 1e-5
    data = detection_batch(model)

    def rpn_gradient() -> torch.Tensor:
        torch.manual_seed(1)
        model.zero_grad()
        with torch.autocast('cpu', torch.float16):
            losses = model(**data, mode='loss')
        model.parse_losses(dict(loss=losses['loss_rpn_cls']))[0].backward()
        return model.rpn_head.rpn_conv.weight.grad.clone()

    def error(scaler) -> float:
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        wrapper.loss_scaler = scaler
        hook = EarlyLossHook(['rpn_head'])
        hook.apply(model, wrapper)
        found = rpn_gradient()
        hook.remove(model)
        return (torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected)).item()

    expected = 1e-5 * unscaled_gradient(model, data)
    assert error(torch.amp.GradScaler('cpu', init_scale=65536.0)) < 0.05
    assert error(None) > 0.5


@pytest.mark.parametrize(
    ('heads', 'message'),
    [(['rpn'], "FasterRCNN has no module 'rpn'; it has"), (['neck'], r"'neck' \(FPN\) has no loss\(\) of its own")],
)
def test_heads_that_have_no_early_loss(tmp_path, heads, message):
    config = coco_runner_config(tmp_path)
    config.custom_hooks = [*HOOKS, dict(type='EarlyLossHook', heads=heads)]
    with pytest.raises(ValueError, match=message):
        runner(config).train()
    with pytest.raises(ValueError, match='must be a list of names'):
        EarlyLossHook('rpn_head')


class Head(torch.nn.Module):
    """A head whose loss is what a test wants."""

    def __init__(self, losses=None) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.losses = losses

    def loss(self, x, *others):
        return {'loss_cls': (x[0] * self.scale).sum()} if self.losses is None else self.losses


FEATURES = torch.rand(1, 4, 8, 8)
LEARNED = FEATURES.clone().requires_grad_()


@pytest.mark.parametrize(
    ('head', 'args', 'message'),
    [
        (Head({}), [[FEATURES]], 'Head computes no loss: remove it from heads'),
        (Head(), [dict(x=FEATURES)], 'does not start from a list of feature maps'),
        (Head(), [[FEATURES], LEARNED], "uses another head's output, whose gradient would be lost"),
        (Head(), [[FEATURES], [InstanceData(features=LEARNED[0])]], "uses another head's output"),
    ],
)
def test_losses_that_cannot_be_taken_early(head, args, message):
    model = torch.nn.ModuleDict(dict(head=head)).train()
    EarlyLossHook(['head']).apply(model)
    with pytest.raises(ValueError, match=message):
        head.loss(*args)


def test_the_loss_scale_is_that_of_the_optimizer_that_holds_the_head(tmp_path):
    run = runner(coco_runner_config(tmp_path))
    model, hook = run.model, EarlyLossHook(['rpn_head'])
    wrappers = {
        name: OptimWrapper(torch.optim.SGD(module.parameters(), lr=0.1))
        for name, module in dict(rpn=model.rpn_head, roi=model.roi_head).items()
    }
    wrappers['rpn'].loss_scaler = torch.amp.GradScaler('cpu')
    run.optim_wrapper = OptimWrapperDict(**wrappers)
    hook.before_train(run)
    assert model.rpn_head.loss.loss_scaler is wrappers['rpn'].loss_scaler
    hook.after_train(run)
    wrappers['roi'].optimizer.add_param_group(dict(params=[model.rpn_head.rpn_conv.weight]))
    with pytest.raises(ValueError, match='2 optimizers of optim_wrapper hold the trainable parameters of model.rpn_h'):
        hook.before_train(run)
