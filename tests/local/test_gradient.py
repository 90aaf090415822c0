import gc
import weakref
from itertools import pairwise

import pytest
import torch
from torch import nn

from manpp_mm.local import BlockOutput, LocalStep, deliver, early_loss
from manpp_mm.local import local_step as step_of_a_block


def local_step(block, *args, **kwargs) -> LocalStep:
    """A step of a block that maps a tensor to a tensor."""
    return step_of_a_block(lambda x: BlockOutput(block(x), {}), *args, **kwargs)


def chain(*sizes: int) -> nn.Sequential:
    return nn.Sequential(*(m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.Tanh())))


def setup(dtype=torch.float64):
    block, auxiliary, x = chain(4, 5, 6).to(dtype), chain(6, 2).to(dtype), torch.rand(3, 4, dtype=dtype)
    parameters = [*block.parameters(), *auxiliary.parameters()]
    return block, lambda y: {'loss_a': auxiliary(y).square(), 'acc': y.mean()}, x, parameters


def reference(block, loss, x, parameters):
    return torch.autograd.grad(loss(block(x))['loss_a'].mean(), parameters)


def test_delivered_gradients_are_the_ordinary_ones():
    block, loss, x, parameters = setup()
    step = local_step(block, loss, x, parameters)
    assert all(p.grad is None for p in parameters)
    zero = deliver([step.gradients])
    assert zero.item() == 0
    zero.backward()
    for p, g in zip(parameters, reference(block, loss, x, parameters), strict=True):
        assert torch.equal(p.grad, g)


def test_gradients_follow_the_factor_that_reaches_the_delivery_and_accumulate():
    block, loss, x, parameters = setup()
    for factor in (0.25, 3.0):
        (deliver([local_step(block, loss, x, parameters).gradients]) * factor).backward()
    for p, g in zip(parameters, reference(block, loss, x, parameters), strict=True):
        torch.testing.assert_close(p.grad, 3.25 * g, rtol=1e-14, atol=0)


def test_outputs_and_losses_are_detached_and_all_losses_reported():
    block, loss, x, parameters = setup()
    step = step_of_a_block(lambda x: BlockOutput(block(x), {2: 2 * x, 3: block(x)}), loss, x, parameters)
    assert [o.requires_grad for o in (step.output.x, *step.output.features.values())] == [False] * 3
    assert set(step.losses) == {'loss_a', 'acc'}
    assert not any(v.requires_grad for v in step.losses.values())
    assert torch.equal(step.output.x, block(x))
    assert torch.equal(step.output.features[2], 2 * x)


def test_lists_of_losses_sum_their_means():
    block, _, x, parameters = setup()
    step = local_step(block, lambda y: {'loss': [y, 2 * y]}, x, parameters)
    torch.testing.assert_close(step.losses['loss'], 3 * block(x).mean())


def test_the_graph_is_freed_when_the_step_returns():
    block, loss, x, parameters = setup()
    alive = []

    def watched(x):
        y = block(x)
        hidden = torch.exp(y)
        alive.append(weakref.ref(hidden.untyped_storage()))  # exp keeps its result for backward
        return hidden.sum(1, keepdim=True) + y

    gc.disable()
    try:
        step = local_step(watched, loss, x, parameters)
        assert alive[0]() is None
        assert step.losses
    finally:
        gc.enable()


def test_frozen_and_unreached_parameters_get_no_gradient():
    block, loss, x, parameters = setup()
    parameters[0].requires_grad_(False)
    unreached = nn.Parameter(torch.rand(2))
    deliver([local_step(block, loss, x, [*parameters, unreached]).gradients]).backward()
    assert parameters[0].grad is None
    assert unreached.grad is None
    assert parameters[1].grad is not None


def test_no_copy_is_made_of_a_delivered_gradient():
    block, loss, x, parameters = setup()
    step = local_step(block, loss, x, parameters)
    storages = [g.data_ptr() for g in step.gradients.gradients]
    deliver([step.gradients]).backward()
    assert [p.grad.data_ptr() for p in parameters] == storages


def test_scale_is_divided_out():
    block, loss, x, parameters = setup(torch.float32)
    deliver([local_step(block, loss, x, parameters, scale=torch.tensor(1024.0)).gradients]).backward()
    for p, g in zip(parameters, reference(block, loss, x, parameters), strict=True):
        assert torch.equal(p.grad, g)  # powers of two lose nothing


def test_infinite_loss_reaches_the_gradients_and_not_the_delivered_value():
    block, _, x, parameters = setup()
    step = local_step(block, lambda y: {'loss': y.sum() * float('inf')}, x, parameters)
    zero = deliver([step.gradients])
    assert zero.item() == 0
    zero.backward()
    assert not torch.isfinite(parameters[0].grad).any()


def test_gradients_that_share_memory_are_scaled_once():
    a, b, c = (nn.Parameter(torch.rand(3, dtype=torch.float64)) for _ in range(3))
    x = torch.rand(3, dtype=torch.float64)
    step = local_step(lambda x: x * (a + b), lambda y: {'loss': [y, c]}, x, [a, b, c])
    (deliver([step.gradients]) * 0.5).backward()
    for p, g in ((a, x / 6), (b, x / 6), (c, torch.full_like(x, 1 / 6))):
        torch.testing.assert_close(p.grad, g)


class TestBadInput:
    def test_second_backward(self):
        zero = deliver([local_step(*setup()).gradients])
        zero.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match='second time'):
            zero.backward()

    def test_no_loss_key(self):
        block, _, x, parameters = setup()
        with pytest.raises(RuntimeError, match="contains 'loss'"):
            local_step(block, lambda y: {'acc': y.mean()}, x, parameters)

    def test_loss_without_gradient(self):
        block, _, x, parameters = setup()
        with pytest.raises(RuntimeError, match='depends on no trainable parameter'):
            local_step(block, lambda y: {'loss': y.detach().mean()}, x, parameters)
        with pytest.raises(RuntimeError, match='depends on no trainable parameter'):
            local_step(block, lambda y: {'loss': y.mean()}, x, [nn.Parameter(torch.rand(1))])

    def test_loss_of_another_type(self):
        block, _, x, parameters = setup()
        with pytest.raises(TypeError, match="'loss' is"):
            local_step(block, lambda y: {'loss': 1.0}, x, parameters)

    def test_tensor_hook(self):
        block, loss, x, parameters = setup()
        parameters[0].register_hook(lambda g: g)
        with pytest.raises(RuntimeError, match='register_post_accumulate_grad_hook'):
            local_step(block, loss, x, parameters)
        with pytest.raises(RuntimeError, match='register_post_accumulate_grad_hook'):
            early_loss(lambda features: (loss(block(features[0])), None), [x], parameters)


def test_a_tensor_hook_on_the_features_of_an_early_loss_fires_once():
    block, _, x, _ = setup()
    features = block(x)
    fired = []
    features.register_hook(fired.append)
    head = chain(6, 2).double()
    losses, rest = early_loss(lambda found: ({'loss': head(found[0]).square()}, 'rest'), [features], head.parameters())
    assert rest == 'rest'
    assert not fired
    losses['loss'].backward()
    assert len(fired) == 1
    found = [p.grad for p in (*block.parameters(), *head.parameters())]
    expected = torch.autograd.grad(head(block(x)).square().mean(), [*block.parameters(), *head.parameters()])
    for gradient, other in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-12, atol=0)
