"""Checkpointing: recompute a part of a model in backward instead of keeping its activations."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

_BATCH_NORMS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)
_STATISTICS = {'running_mean', 'running_var', 'num_batches_tracked'}


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
    held = [cast('nn.Module', function)] if modules is None else list(modules)
    return checkpoint(function, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), _BuffersKept(held)))


class _BuffersKept:
    """Let what runs inside change stand-ins of the modules' buffers, and put the buffers themselves back.

    It can be entered again: a graph that is retained is recomputed in each backward.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modules = modules
        self._kept: list[tuple[nn.Module, dict[str, Tensor | None]]] = []

    def __enter__(self) -> None:
        self._kept = [(module, dict(module._buffers)) for module in _changing(self._modules)]
        # All are made before one is put in place: a module may be there twice, and a clone may fail.
        stand_ins = [_stand_ins(module) for module, _ in self._kept]
        for (module, _), buffers in zip(self._kept, stand_ins, strict=True):
            module._buffers.update(buffers)

    def __exit__(self, *exception: object) -> None:
        for module, buffers in self._kept:
            module._buffers.update(buffers)
        self._kept = []


def _changing(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """The modules, and those inside them, whose forward may change a buffer."""
    # Each step comes by here; nn.Module.modules() takes twice as long.
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module._buffers and (module.training or not _is_batch_norm(module)):
            yield module
        waiting += [child for child in module._modules.values() if child is not None]


def _is_batch_norm(module: nn.Module) -> bool:
    """Whether it is PyTorch's own: its output in training depends on no buffer, and in evaluation it changes none.

    One with a forward or buffers of its own may do otherwise.
    """
    return getattr(module.forward, '__func__', None) in _BATCH_NORMS and module._buffers.keys() <= _STATISTICS


def _stand_ins(module: nn.Module) -> dict[str, Tensor]:
    buffers = {name: b for name, b in module._buffers.items() if b is not None}
    if _is_batch_norm(module):
        return {name: _scratch(name, b.shape, b.dtype, b.device) for name, b in buffers.items()}
    return {name: b.clone() for name, b in buffers.items()}


@lru_cache(maxsize=1024)
def _scratch(name: str, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory in place of a buffer that a recomputation writes and nobody reads, shared by all BatchNorms."""
    return torch.zeros(shape, dtype=dtype, device=device)
