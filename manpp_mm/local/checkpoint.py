"""Checkpointing: recompute a part of a model in backward instead of keeping its activations."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def _buffers_kept(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let what runs inside change clones of the modules' buffers, and put the buffers themselves back."""
    kept = [(m, dict(m._buffers)) for module in modules for m in module.modules() if m._buffers]
    for m, buffers in kept:
        m._buffers.update({name: b.clone() for name, b in buffers.items() if b is not None})
    try:
        yield
    finally:
        for m, buffers in kept:
            m._buffers.update(buffers)


def checkpointed(function: Callable[..., Any], *args: Any, modules: 'Iterable[nn.Module] | None' = None) -> Any:
    """Run ``function(*args)`` keeping only its arguments for backward.

    Non-reentrant, so that :func:`torch.autograd.grad` works through it. The recomputation leaves the modules' buffers
    as they are: BatchNorm's running statistics move once a step, as without checkpointing.

    Args:
        function: What to run, a residual unit, say.
        args: Its arguments.
        modules: The modules that it runs; where it is itself a module, that one by default.

    Returns:
        What it returns.
    """
    held = [function] if modules is None else list(modules)
    return checkpoint(function, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), _buffers_kept(held)))
