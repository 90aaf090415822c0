"""Checkpointed units: recompute a unit in backward instead of keeping its activations."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """Let what runs inside change clones of the module's buffers, and put the buffers themselves back."""
    kept = [(m, dict(m._buffers)) for m in module.modules() if m._buffers]
    for m, buffers in kept:
        m._buffers.update({name: b.clone() for name, b in buffers.items() if b is not None})
    try:
        yield
    finally:
        for m, buffers in kept:
            m._buffers.update(buffers)


def checkpointed(unit: nn.Module, x: Tensor) -> Tensor:
    """Run ``unit(x)`` keeping only ``x`` for backward.

    Non-reentrant, so that :func:`torch.autograd.grad` works through it. The recomputation leaves the unit's buffers as
    they are: BatchNorm's running statistics move once a step, as without checkpointing.

    Args:
        unit: A residual unit.
        x: Its input (N, C, H, W).

    Returns:
        Its output.
    """
    return checkpoint(unit, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _buffers_kept(unit)))
