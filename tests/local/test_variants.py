"""Each variant's y and one update of every parameter, computed by hand in float64."""

import pytest
import torch
from torch import nn

from manpp_mm.local import BlockOutput, Branches, deliver, local_step, update_momentum_branches

VARIANTS = {
    'MAN++': (dict(), True),
    'MAN': (dict(scaling=1), False),
    'fixed s': (dict(scaling=0.5), False),
    'learnable branch only': (dict(branches=['learnable']), False),
    'momentum branch only': (dict(branches=['momentum']), False),
    'DGL': (dict(branches=[]), False),
}
LR, M = 0.1, 0.9


def linear(weight: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
    return layer


@pytest.mark.parametrize('name', VARIANTS)
def test_output_and_one_update(name):
    options, learns_s = VARIANTS[name]
    block, unit = linear([[1.0, 2.0], [0.0, -1.0]]), linear([[2.0, 0.0], [1.0, 1.0]])
    head = linear([[1.0, 1.0], [0.0, 0.0]])
    x0 = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    branches = Branches(unit, **options).double()
    s = 1.0
    if learns_s:
        s = 1.5
        with torch.no_grad():
            branches.delta.fill_(0.5)
    elif 'scaling' in options:
        s = options['scaling']
    with torch.no_grad():  # each branch elsewhere than the unit
        if branches.learnable is not None:
            branches.learnable.weight.mul_(2)
        if branches.momentum is not None:
            branches.momentum.weight.add_(1)
    has_b, has_m = branches.learnable is not None, branches.momentum is not None

    # x = (3 + 2, -1), B x = (20, 8), M x = (14, 8); the loss is the sum of y's two entries.
    bx, mx, x = torch.tensor([20.0, 8.0]), torch.tensor([14.0, 8.0]), torch.tensor([5.0, -1.0])
    y = s * bx + (2 - s) * mx if has_b and has_m else bx if has_b else mx if has_m else x
    parameters = [p for module in (block, branches, head) for p in module.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=LR)
    step = local_step(lambda x: BlockOutput(block(x), {}), lambda x: {'loss': head(branches(x)).sum()}, x0, parameters)
    torch.testing.assert_close(branches(block(x0))[0], y.double())
    torch.testing.assert_close(step.losses['loss'], y.double().sum())
    deliver([step.gradients]).backward()
    optimizer.step()

    # dL/dB = s h x^T and so on with h = (1, 1); dL/dx = s B^T h + (2 - s) M^T h.
    b, m = torch.tensor([[4.0, 0.0], [2.0, 2.0]]), torch.tensor([[3.0, 1.0], [2.0, 2.0]])
    factor_b, factor_m = (s, 2 - s) if has_b and has_m else (1.0, 1.0)
    slope = (factor_b * b.sum(0) if has_b else 0) + (factor_m * m.sum(0) if has_m else 0)
    slope = slope if has_b or has_m else torch.tensor([1.0, 1.0])
    expected = torch.tensor([[1.0, 2.0], [0.0, -1.0]]) - LR * torch.outer(slope, torch.tensor([3.0, 1.0]))
    torch.testing.assert_close(block.weight.data, expected.double())
    expected = torch.tensor([[1.0, 1.0], [0.0, 0.0]]) - LR * torch.stack([y, y])
    torch.testing.assert_close(head.weight.data, expected.double())
    if has_b:
        torch.testing.assert_close(branches.learnable.weight.data, (b - LR * factor_b * torch.stack([x, x])).double())
    if learns_s:
        assert branches.scaling.item() == pytest.approx(1.5 - LR * ((20 - 14) + (8 - 8)))
    elif has_b and has_m:
        assert branches.scaling == s
        assert branches.delta is None
    else:
        assert branches.scaling is None
    if has_m:
        assert torch.equal(branches.momentum.weight.data, m.double())
        update_momentum_branches([(branches.momentum, unit)], M)
        torch.testing.assert_close(branches.momentum.weight.data, (M * m + (1 - M) * unit.weight.data).double())
    own = {name.split('.')[0] for name in branches.state_dict()}
    assert own == set(['learnable'] * has_b + ['momentum'] * has_m + ['delta'] * learns_s)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(branches='momentum'), "branches='momentum' must be a list"),
        (dict(branches=['momentum', 'ema']), 'must be a list of'),
        (dict(branches=['learnable', 'learnable']), 'must be a list of'),
        (dict(branches=['learnable'], scaling=1), 'needs two branches'),
        (dict(scaling='learned'), "scaling='learned' must be"),
        (dict(scaling=2.5), 'scaling=2.5 must be'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Branches(nn.Linear(1, 1), **options)
