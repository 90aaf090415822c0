"""Counting of the bytes of live tensors, by storage."""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of live tensors while it is active, and their peak.

    A storage counts from the operator that returns it until it is freed. Memory that a kernel allocates and frees
    internally (workspaces) is not counted. While a dispatch mode is active, autograd does not add gradients in place:
    a peak during a sum of gradients is counted one term too high.

    Args:
        exclude: Tensors whose storages are not counted, such as parameters and inputs.
        device: The type of device to count (``'cuda'``); None counts all.

    Example:
        >>> with LiveBytes() as live:
        ...     torch.zeros(1024)
        >>> live.peak
        4096
    """

    def __init__(self, exclude: Iterable[Tensor] = (), device: str | None = None) -> None:
        super().__init__()
        self.current = 0
        self.peak = 0
        self._device = device
        self._excluded = {t.untyped_storage()._cdata for t in exclude}
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, lambda tensor: self._count(tensor, func), result)
        return result

    def _count(self, tensor: Tensor, func: Any) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._excluded or self._device not in (None, tensor.device.type):
            return
        if key not in self._sizes:
            self._sizes[key] = 0
            weakref.finalize(storage, self._forget, key)
        change = storage.nbytes() - self._sizes[key]
        if change:
            self._sizes[key] += change
            self.current += change
            self._allocated(key, tensor, func, change)
            if self.current > self.peak:
                self.peak = self.current
                self._peaked()

    def _forget(self, key: int) -> None:
        size = self._sizes.pop(key)
        self.current -= size
        self._freed(key, size)

    # Callbacks for subclasses.

    def _allocated(self, key: int, tensor: Tensor, func: Any, change: int) -> None:
        """Called when a storage grows or shrinks by ``change`` bytes."""

    def _freed(self, key: int, size: int) -> None:
        """Called when a storage of ``size`` bytes is freed."""

    def _peaked(self) -> None:
        """Called when the sum reaches a new maximum."""


@dataclass
class Held:
    """A storage that is alive at the peak.

    Attributes:
        nbytes: Its size in bytes.
        shape: Shape of the tensor for which it was allocated.
        operator: The operator that allocated it.
        module: The innermost module whose forward was running, as in ``named_modules()``; '' outside of all modules,
            such as in a backward pass without recomputation.
        backward: Whether it was allocated during a backward pass.
    """

    nbytes: int
    shape: tuple[int, ...]
    operator: str
    module: str
    backward: bool


class PeakRecorder(LiveBytes):
    """A :class:`LiveBytes` that records which storages are alive at the peak, and the module that allocated each.

    Torch's own ``ModuleTracker`` hooks into the gradients of tensors, which keeps recomputed tensors alive.

    Args:
        model: The model whose modules are named.
        exclude, device: As for :class:`LiveBytes`.
    """

    def __init__(self, model: nn.Module, exclude: Iterable[Tensor] = (), device: str | None = None) -> None:
        super().__init__(exclude, device)
        self._names = {module: name for name, module in model.named_modules()}
        self._running: list[str] = ['']
        self._held: dict[int, Held] = {}
        self._at_peak: list[Held] = []

    def __enter__(self) -> 'PeakRecorder':
        self._hooks = [
            register_module_forward_pre_hook(self._begin),
            register_module_forward_hook(self._end, always_call=True),
        ]
        return super().__enter__()

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        for hook in self._hooks:
            hook.remove()

    def _begin(self, module: nn.Module, args: Any) -> None:
        self._running.append(self._names.get(module, self._running[-1]))

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        self._running.pop()

    def _allocated(self, key: int, tensor: Tensor, func: Any, change: int) -> None:
        self._held[key] = Held(
            self._sizes[key],
            tuple(tensor.shape),
            str(func).removeprefix('aten.'),
            self._running[-1],
            torch._C._current_graph_task_id() != -1,
        )

    def _freed(self, key: int, size: int) -> None:
        self._held.pop(key, None)

    def _peaked(self) -> None:
        self._at_peak = list(self._held.values())

    def largest(self, number: int) -> list[Held]:
        """Return the largest storages alive at the peak, in descending order."""
        return sorted(self._at_peak, key=lambda held: -held.nbytes)[:number]
