"""Bytes of live tensors, counted storage by storage."""

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive while it is on, and their peak.

    A storage counts from the operator that returns it until it is freed. What a kernel allocates and frees inside
    (workspaces) is not seen. Autograd does not add gradients in place while a dispatch mode is on, so that a peak
    during a sum of gradients is counted one term too high.

    Args:
        exclude: Tensors whose storages are not counted: parameters, inputs.

    Example:
        >>> with LiveBytes() as live:
        ...     torch.zeros(1024)
        >>> live.peak
        4096
    """

    def __init__(self, exclude: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.current = 0
        self.peak = 0
        self._excluded = {t.untyped_storage()._cdata for t in exclude}
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._count, result)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._excluded:
            return
        if key not in self._sizes:
            self._sizes[key] = 0
            weakref.finalize(storage, self._forget, key)
        self.current += storage.nbytes() - self._sizes[key]
        self._sizes[key] = storage.nbytes()
        self.peak = max(self.peak, self.current)

    def _forget(self, key: int) -> None:
        self.current -= self._sizes.pop(key)
