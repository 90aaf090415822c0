"""What a recomputation costs and leaves behind: the forward's own operators, and the buffers of one forward."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from manpp_mm.local import checkpointed


class Operators(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


class Seen(nn.BatchNorm2d):
    """A BatchNorm with a forward of its own, which reads its statistics."""

    def forward(self, x):
        self.seen = self.running_mean.clone()
        return super().forward(x)


class Calls(nn.Module):
    """Counts its calls, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('number', torch.zeros(()))
        self.register_buffer('nothing', None)

    def forward(self, x):
        self.number += 1
        return x.exp()


class Once(nn.Module):
    """Fails when it is run again."""

    ran = False

    def forward(self, x):
        if self.ran:
            raise ArithmeticError('twice')
        self.ran = True
        return x.exp()


NORMS = {
    'BatchNorm': nn.BatchNorm2d,
    'cumulative': lambda channels: nn.BatchNorm2d(channels, momentum=None),
    'SyncBatchNorm': nn.SyncBatchNorm,
    'cumulative SyncBatchNorm': lambda channels: nn.SyncBatchNorm(channels, momentum=None),
    'without statistics': lambda channels: nn.BatchNorm2d(channels, track_running_stats=False),
    'InstanceNorm': lambda channels: nn.InstanceNorm2d(channels, affine=True, track_running_stats=True),
    'subclass': Seen,
}


def unit(norm=nn.BatchNorm2d) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), norm(3), nn.ReLU())


def images() -> torch.Tensor:
    return torch.rand(4, 2, 5, 5)


def step(module: nn.Module, x: torch.Tensor, run=checkpointed) -> None:
    run(module, x).square().sum().backward()


def plainly(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return module(x)


def additional(module: nn.Module) -> Counter:
    """The operators that a checkpointed step runs beyond a plain one."""
    x = images()
    counts = {}
    for run in (plainly, checkpointed):
        module.zero_grad(set_to_none=True)
        with Operators() as found:
            step(module, x, run)
        counts[run] = found.names
    assert not counts[plainly] - counts[checkpointed]
    found = counts[checkpointed] - counts[plainly]
    del found['detach']  # a view, of all that is saved
    return found


def forward_operators(module: nn.Module) -> Counter:
    x = images()
    with Operators() as found:
        module(x)
    del found.names['detach']
    return found.names


@pytest.mark.parametrize('norm', [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_in_evaluation_the_forward_alone_is_added(norm):
    module = unit(norm).eval()
    assert additional(module) == forward_operators(module)


@pytest.mark.parametrize('norm', [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_in_training_the_forward_alone_is_added_from_the_second_step_on(norm):
    module = unit(norm)
    step(module, images())
    assert additional(module) == forward_operators(module)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('name', NORMS)
def test_gradients_and_buffers_of_three_steps_are_the_plain_ones(name, training, dtype):
    plain = nn.Sequential(unit(NORMS[name]), nn.Conv2d(3, 2, 1), Calls()).to(dtype).train(training)
    kept = deepcopy(plain)
    buffers = dict(kept.named_buffers())
    for _ in range(3):
        x = images().to(dtype)
        step(plain, x, plainly)
        step(kept, x)
        for p, q in zip(plain.parameters(), kept.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad)
        for key, value in plain.named_buffers():
            assert torch.equal(value, buffers[key]), key
    assert kept[2].number == 3
    assert all(value is buffers[key] for key, value in kept.named_buffers())
    assert kept.state_dict().keys() == plain.state_dict().keys()


def test_a_subclass_reads_its_statistics():
    module = unit(Seen)
    step(module, images())
    assert torch.equal(module[1].seen, module[1].running_mean)


@pytest.mark.parametrize('change', ['forward', 'buffer'])
def test_a_batch_norm_that_was_changed_is_cloned(change):
    module = unit()
    norm = module[1]
    if change == 'forward':
        original = norm.forward
        norm.forward = lambda x: original(x) + norm.running_mean.sum()
    else:
        norm.register_buffer('number', torch.zeros(()))
        norm.register_forward_pre_hook(lambda *_: norm.number.add_(1) and None)
    step(module, images())
    assert additional(module)['clone'] == len(norm._buffers)
    if change == 'buffer':
        assert norm.number == 3


def test_a_module_that_is_there_twice():
    norm = nn.BatchNorm2d(2)
    buffers = dict(norm._buffers)
    checkpointed(lambda x: norm(norm(x)), images(), modules=[norm, nn.Sequential(norm)]).square().sum().backward()
    assert all(value is buffers[key] for key, value in norm._buffers.items())
    assert norm.num_batches_tracked == 2


def test_a_recomputation_that_fails_leaves_the_buffers():
    module = nn.Sequential(unit(), Calls(), Once())
    buffers = dict(module.named_buffers())
    with pytest.raises(ArithmeticError, match='twice'):
        step(module, images())
    assert all(value is buffers[key] for key, value in module.named_buffers())
    assert module[1].number == 1


def test_a_graph_that_is_retained():
    module, x = unit(), images()
    loss = checkpointed(module, x).square().sum()
    first, second = (torch.autograd.grad(loss, module[0].weight, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert module[1].num_batches_tracked == 1


def test_dropout_drops_the_same_again():
    module, x = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Dropout(0.5), nn.BatchNorm2d(3), nn.ReLU()), images()
    grads, states = [], []
    for run in (plainly, checkpointed):
        module.zero_grad()
        torch.manual_seed(1)
        step(module, x, run)
        grads.append(module[0].weight.grad.clone())
        states.append(torch.get_rng_state())
    assert torch.equal(*grads)
    assert torch.equal(*states)


def test_recomputations_in_several_threads():
    plain = [unit().to(dtype) for dtype in (torch.float32, torch.float64) * 4]
    kept = deepcopy(plain)
    x = images()

    def train(module: nn.Module, run) -> None:
        for _ in range(20):
            step(module, x.to(module[0].weight.dtype), run)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda module: train(module, checkpointed), kept))
    for a, b in zip(plain, kept, strict=True):
        train(a, plainly)
        for p, q in zip((*a.parameters(), *a.buffers()), (*b.parameters(), *b.buffers()), strict=True):
            assert torch.equal(p, q)
            assert p.grad is None or torch.equal(p.grad, q.grad)


def test_devices_and_types_do_not_mix():
    for _ in range(2):
        for device, dtype in (('cpu', torch.float32), ('meta', torch.float32), ('cpu', torch.bfloat16)):
            module = unit().to(device, dtype)
            step(module, images().to(device, dtype))
            assert module[0].weight.grad.device.type == device
            assert module[0].weight.grad.dtype == dtype


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU')
@pytest.mark.parametrize('norm', [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_on_a_gpu_where_backward_has_its_own_thread(norm):
    plain = unit(norm).cuda()
    kept = deepcopy(plain)
    for _ in range(2):
        x = images().cuda()
        step(plain, x, plainly)
        step(kept, x)
        for p, q in zip(plain.parameters(), kept.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad)
        for p, q in zip(plain.buffers(), kept.buffers(), strict=True):
            assert torch.equal(p, q)
