"""Mixed precision at the level of the learning rule: autocast and a gradient scaler on the CPU."""

import copy
from types import SimpleNamespace

import pytest
import torch
from helpers import build, detection_batch, detector_config
from torch import nn

from manpp_mm.hooks.momentum_hook import _MomentumUpdate
from manpp_mm.local import BlockOutput, Branches, deliver, local_step
from manpp_mm.memory import LiveBytes

SCALE = 65536.0


class Toy(nn.Module):
    """Two blocks of convolutions; block 0 has branches and a head."""

    def __init__(self) -> None:
        super().__init__()
        unit = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.next = unit
        self.branches = Branches(unit)
        self.head = nn.Conv2d(4, 2, 1)
        self.classifier = nn.Conv2d(4, 2, 1)
        self.factor = 0.1

    def local_loss(self, y):
        return {'loss': (self.head(self.branches(y)).float() * self.factor).square()}

    def task(self, x):
        return self.classifier(self.next(x)).float().square().mean()

    def local(self, x, scale):
        parameters = [p for m in (self.block, self.branches, self.head) for p in m.parameters()]
        step = local_step(lambda x: BlockOutput(self.block(x), {}), self.local_loss, x, parameters, scale)
        return self.task(step.output.x) + deliver([step.gradients]), step

    def naive(self, x):
        y = self.block(x)
        return self.task(y.detach()) + self.local_loss(y)['loss'].mean()


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_parity_with_the_naive_sum(dtype):
    x, model = torch.rand(2, 3, 8, 8), Toy()
    other = copy.deepcopy(model)
    scalers = [torch.amp.GradScaler('cpu', init_scale=SCALE, enabled=dtype == torch.float16) for _ in range(2)]
    for step in range(2):  # the second with moved weights
        with torch.autocast('cpu', dtype):
            loss, _ = model.local(x, scalers[0].scale(torch.ones(())))
            naive = other.naive(x)
        scalers[0].scale(loss).backward()
        scalers[1].scale(naive).backward()
        expected = gradients(other)
        assert gradients(model).keys() == expected.keys()
        for name, gradient in gradients(model).items():
            error = torch.linalg.vector_norm(gradient - expected[name])
            assert error <= 1e-6 * torch.linalg.vector_norm(expected[name]), (step, name)
        for m, scaler in zip((model, other), scalers, strict=True):
            optimizer = torch.optim.SGD(m.parameters(), lr=0.1)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), other.buffers(), strict=True))


def test_small_gradients_do_not_underflow_in_float16():
    x, model = torch.rand(2, 3, 8, 8), Toy()
    model.factor = 1e-3  # gradients near 1e-8, below what float16 holds
    exact = copy.deepcopy(model)
    exact.naive(x).backward()
    expected = exact.block[0].weight.grad
    found = {}
    for scale in (1.0, SCALE):
        model.zero_grad()
        with torch.autocast('cpu', torch.float16):
            loss, _ = model.local(x, scale)
        loss.backward()
        found[scale] = model.block[0].weight.grad.clone()
    size = torch.linalg.vector_norm(expected)
    assert torch.linalg.vector_norm(found[SCALE] - expected) < 0.1 * size
    assert torch.linalg.vector_norm(found[1.0] - expected) > 0.5 * size


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('broken', [True, False])
def test_an_infinite_gradient_in_one_block_skips_the_step_for_all(broken, fused):
    x, model = torch.rand(2, 3, 8, 8), Toy()
    scaler = torch.amp.GradScaler('cpu', init_scale=SCALE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    pairs = [(model.branches.momentum, model.next)]
    optimizer.register_step_post_hook(_MomentumUpdate(SimpleNamespace(momentum_pairs=lambda: pairs), 0.5))
    with torch.no_grad():
        model.branches.momentum[0].weight.add_(1.0)  # away from its source, so that an update would move it
    if broken:
        model.factor = 1e20
    before = copy.deepcopy(model.state_dict())
    with torch.autocast('cpu', torch.float16):
        loss, step = model.local(x, scaler.scale(torch.ones(())))
    scaler.scale(loss).backward()
    assert torch.isfinite(model.head.weight.grad).all().item() != broken
    assert torch.isfinite(model.classifier.weight.grad).all()
    scaler.step(optimizer)
    scaler.update()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    if broken:
        assert moved == set()
        assert scaler.get_scale() == SCALE / 2
    else:
        assert {'block.0.weight', 'head.weight', 'classifier.weight', 'next.0.weight'} <= moved
        assert 'branches.momentum.0.weight' in moved
    assert step.gradients.gradients == []


@pytest.mark.parametrize('gradient', ['local', 'exact'])
def test_no_half_precision_copy_of_a_blocks_weights_outlives_its_step(gradient):
    model = build(detector_config(gradient=gradient))
    data = detection_batch(model)
    with LiveBytes() as live, torch.autocast('cpu', torch.bfloat16):
        losses = model(**data, mode='loss')
        held = live.current
        torch.clear_autocast_cache()  # what the last block and the heads cast lies in their graphs, but for biases
        assert held - live.current < 1000
    assert all(torch.isfinite(value).all() for value in losses['loss_rpn_cls'])
