"""Activation checkpointing: recomputes part of a model in backward instead of keeping its activations."""

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
    """Run ``function(*args)`` and keep only its arguments for backward.

    It is non-reentrant, so :func:`torch.autograd.grad` works through it. The recomputation does not change the modules'
    buffers: BatchNorm's running statistics are updated once per step, as without checkpointing.

    Args:
        function: The function to run, such as a residual unit.
        args: Its arguments.
        modules: The modules that it runs; by default the function itself, which must then be a module.

    Returns:
        The result of the function.
    """
    held = [cast('nn.Module', function)] if modules is None else list(modules)
    return checkpoint(function, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), _BuffersKept(held)))


def rerun(module: nn.Module, x: Tensor) -> Tensor:
    """Run a module once more in a step in which it has already run, and keep only its argument for backward.

    Neither this run nor the recomputation changes the module's buffers. Dropout draws anew.
    """
    with _BuffersKept([module]):
        return checkpointed(module, x)


class _BuffersKept:
    """Replaces the modules' buffers by stand-ins while the context is active, then restores the buffers.

    It can be entered repeatedly, because a retained graph is recomputed in each backward.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modules = modules
        self._kept: list[tuple[nn.Module, dict[str, Tensor | None]]] = []

    def __enter__(self) -> None:
        self._kept = [(module, dict(module._buffers)) for module in _changing(self._modules)]
        # Create all of them before replacing any: a module may occur twice, and a clone may fail.
        stand_ins = [_stand_ins(module) for module, _ in self._kept]
        for (module, _), buffers in zip(self._kept, stand_ins, strict=True):
            module._buffers.update(buffers)

    def __exit__(self, *exception: object) -> None:
        for module, buffers in self._kept:
            module._buffers.update(buffers)
        self._kept = []


def _changing(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Yield the modules and submodules whose forward may change a buffer."""
    # This runs in each step; nn.Module.modules() takes twice as long.
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module._buffers and (module.training or not _is_batch_norm(module)):
            yield module
        waiting += [child for child in module._modules.values() if child is not None]


def _is_batch_norm(module: nn.Module) -> bool:
    """Return whether a module is PyTorch's own BatchNorm, whose output in training does not depend on buffers.

    In evaluation mode, it changes no buffer. A subclass with its own forward or buffers may behave differently.
    """
    return getattr(module.forward, '__func__', None) in _BATCH_NORMS and module._buffers.keys() <= _STATISTICS


def _stand_ins(module: nn.Module) -> dict[str, Tensor]:
    buffers = {name: b for name, b in module._buffers.items() if b is not None}
    if _is_batch_norm(module):
        return {name: _scratch(name, b.shape, b.dtype, b.device) for name, b in buffers.items()}
    return {name: b.clone() for name, b in buffers.items()}


@lru_cache(maxsize=1024)
def _scratch(name: str, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a substitute for a buffer that a recomputation writes but nobody reads, shared by all BatchNorms."""
    return torch.zeros(shape, dtype=dtype, device=device)
