import torch

from manpp_mm.profiling import LiveBytes


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
