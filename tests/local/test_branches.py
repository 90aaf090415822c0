import pytest
import torch
from torch import nn

from manpp_mm.local import Branches, checkpointed, update_momentum_branches
from manpp_mm.memory import LiveBytes


def unit() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).double()


def test_formula_and_gradients():
    branches = Branches(unit()).double().eval()
    with torch.no_grad():
        branches.delta.fill_(0.25)
        branches.learnable[0].weight.mul_(2)
    x = torch.rand(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    b, m = branches.learnable(x), branches.momentum(x)
    y = branches(x)
    torch.testing.assert_close(y, 1.25 * b + 0.75 * m)
    y.sum().backward()
    torch.testing.assert_close(branches.delta.grad, (b - m).sum())
    assert all(p.grad is None and not p.requires_grad for p in branches.momentum.parameters())
    expected = torch.autograd.grad((1.25 * branches.learnable(x) + 0.75 * branches.momentum(x)).sum(), x)[0]
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize('training', [False, True])
def test_momentum_branch_keeps_no_input_of_a_batch_norm_in_evaluation(training):
    branches = Branches(unit(), branches=['momentum']).double().train(training)
    with torch.no_grad():
        branches.momentum[1].running_mean.uniform_()
        branches.momentum[1].weight.uniform_()
    x = torch.rand(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        y = branches(x)
    assert ((1, 3, 3, 3) in kept) == training
    torch.testing.assert_close(y, branches.momentum(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_momentum_branch_in_half_precision_is_as_exact_as_torchs_own(dtype):
    branches = Branches(unit().float(), branches=['momentum']).eval()
    norm = branches.momentum[1]
    with torch.no_grad():
        for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
            value.uniform_(0.1, 2)
    x = torch.rand(4, 2, 9, 9)
    with torch.autocast('cpu', dtype):
        found, torchs = branches(x), branches.momentum(x)
    assert found.dtype == torchs.dtype == dtype
    with torch.autocast('cpu', dtype):
        exact = norm.double()(branches.momentum[0](x).double())
    errors = [(y.double() - exact).abs().max() for y in (found, torchs)]
    assert errors[0] <= errors[1] * 1.01


def test_sync_copies_parameters_and_buffers():
    source = unit()
    source(torch.rand(4, 2, 5, 5, dtype=torch.float64))
    branches = Branches(unit())
    branches.sync(source)
    for branch in (branches.learnable, branches.momentum):
        for name, value in source.state_dict().items():
            assert torch.equal(branch.state_dict()[name], value)


def test_momentum_over_several_steps_by_hand():
    source, branch = nn.Linear(1, 1), nn.Linear(1, 1)
    with torch.no_grad():
        branch.weight.fill_(1.0)
    expected = 1.0
    for theta in (2.0, -1.0, 0.5):
        with torch.no_grad():
            source.weight.fill_(theta)
        update_momentum_branches([(branch, source)], 0.995)
        expected = 0.995 * expected + 0.005 * theta
    # 0.995 * (0.995 * (0.995 * 1 + 0.01) - 0.005) + 0.0025
    assert expected == pytest.approx(0.9925001250, abs=1e-9)
    assert branch.weight.item() == pytest.approx(expected, abs=1e-6)


def test_buffers_are_not_averaged():
    source, branch = unit(), unit()
    source(torch.rand(4, 2, 5, 5, dtype=torch.float64))
    before = branch[1].running_mean.clone()
    update_momentum_branches([(branch, source)], 0.5)
    assert torch.equal(branch[1].running_mean, before)


@pytest.mark.parametrize('found_inf', [0.0, 1.0])
def test_a_skipped_step_leaves_the_branches(found_inf):
    source, branch, expected = unit(), unit(), unit()
    expected.load_state_dict(branch.state_dict())
    if not found_inf:
        update_momentum_branches([(expected, source)], 0.9)
    update_momentum_branches([(branch, source)], 0.9, torch.tensor(found_inf))
    for p, q in zip(branch.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_checkpointed_unit_moves_its_statistics_once_and_again_at_the_next_step():
    plain, kept = unit(), unit()
    kept.load_state_dict(plain.state_dict())
    for _ in range(2):
        x = torch.rand(4, 2, 5, 5, dtype=torch.float64)
        plain(x).square().sum().backward()
        checkpointed(kept, x).square().sum().backward()
        for p, q in zip(plain.parameters(), kept.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad)
        for name, value in plain.state_dict().items():
            assert torch.equal(value, kept.state_dict()[name]), name


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_momentum_branchs_batch_norm_holds_no_more_than_torchs(dtype):
    """Under autocast too: torch's own keeps its input, this one nothing of the map's size."""
    norm = nn.BatchNorm2d(16).eval().requires_grad_(False)
    x = torch.rand(2, 16, 32, 32).to(dtype).requires_grad_()
    held = {}
    for name, forward in (('torch', norm), ('branch', Branches(norm, branches=['momentum']))):
        with LiveBytes(exclude=[x, *norm.buffers()]) as live, torch.autocast('cpu', torch.bfloat16):
            y = forward(x)
            held[name] = live.current - y.untyped_storage().nbytes()
    del y
    assert held['branch'] <= held['torch']
    assert held['branch'] < 1000
