import torch
from torch import nn

from manpp_mm.memory import LiveBytes, PeakRecorder


def test_counts_by_hand():
    x = torch.rand(256)  # 1 KiB
    with LiveBytes(exclude=[x]) as live:
        a = x + 1  # 1 KiB
        b = a.view(16, 16)  # a view is the same storage
        c = torch.cat([a, a])  # 2 KiB
        assert live.current == 3 * 1024
        del c
        assert live.current == 1024
        del a
        assert live.current == 1024  # the view still holds it
        del b
        assert live.current == 0
        x.add_(1)
        assert live.current == 0
    assert live.peak == 3 * 1024


def test_follows_what_autograd_keeps():
    x = torch.rand(256, requires_grad=True)
    with LiveBytes(exclude=[x]) as live:
        y = x.exp()  # kept for backward: 1 KiB
        loss = y.exp().sum()  # its result is kept: 1 KiB, and 4 bytes
        del y
        assert live.current == 2 * 1024 + 4
        loss.backward()
        del loss
        assert live.current == 1024  # the gradient of x


def test_follows_a_storage_that_changes_its_size():
    with LiveBytes() as live:
        x = torch.zeros(256)
        x.set_()
        assert live.current == 0
        x.set_(torch.ones(512))
        assert live.current == 2048


def test_a_small_model_counted_by_hand():
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False))
    x = torch.rand(16, 4)
    with LiveBytes([*model.parameters(), x]) as live:
        model(x).sum().backward()
    # Float32: hidden layer 16 x 8 and its ReLU, of which the first goes; output 16 x 2, the sum and its gradient.
    # At the peak in backward: the ReLU's output, its gradient and what comes out of the ReLU's backward, the
    # gradient of the second weight (2 x 8), the sum with its gradient; the output is gone.
    hidden, scalar, second = 16 * 8 * 4, 4, 2 * 8 * 4
    assert live.peak == 3 * hidden + second + 2 * scalar


def test_what_is_alive_at_the_peak_with_its_module():
    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 64)))
    x = torch.rand(16, 4)
    with PeakRecorder(model, [*model.parameters(), x]) as live:
        model(x)
    first, second = live.largest(2)
    assert (first.module, first.shape, first.nbytes, first.backward) == ('1.0', (16, 64), 16 * 64 * 4, False)
    assert (second.module, second.shape) == ('0', (16, 8))
    wide, x = nn.Linear(64, 64, bias=False), torch.rand(16, 64)
    with PeakRecorder(wide, [wide.weight, x]) as live:
        wide(x).sum().backward()
    gradient = live.largest(1)[0]
    assert (gradient.shape, gradient.backward) == ((64, 64), True)
    assert sum(held.nbytes for held in live.largest(100)) == live.peak
