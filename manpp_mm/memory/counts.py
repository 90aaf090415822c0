"""Counts of a step: operators, synchronizations with the device, floating-point operations."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from .live_bytes import LiveBytes

_NO_KERNEL = {
    'aten::_unsafe_view', 'aten::_reshape_alias', 'aten::lift_fresh', 'aten::empty', 'aten::empty_like',
    'aten::empty_strided', 'aten::new_empty', 'aten::new_empty_strided', 'aten::set_', 'aten::promote_types',
}  # fmt: skip
"""Operators, apart from views, that launch no kernel on a GPU."""

_WAITS = {
    'aten::_local_scalar_dense', 'aten::item', 'aten::nonzero', 'aten::masked_select', 'aten::equal',
    'aten::is_nonzero', 'aten::_unique2', 'aten::unique_consecutive', 'aten::unique_dim', 'aten::bincount',
    'torchvision::nms',
}  # fmt: skip
"""Operators after which the host waits for a GPU to read a value or a size."""


class StepCounts(LiveBytes):
    """Counts the operators, synchronizations and floating-point operations that a step would have on a GPU.

    ``operators`` are dispatched operators that launch at least one kernel on a GPU, which excludes views and bare
    allocations. ``synchronisations`` are operators after which the host waits for a GPU: ``item()`` and equivalents,
    indices of a mask (``nonzero``, boolean indexing), non-maximum suppression, and tensors made from Python lists; on a
    GPU also copies to and from it, which are not visible on a CPU. ``flops`` are floating-point operations of
    convolutions and matrix products.

    Args:
        exclude, device: As for :class:`LiveBytes`; bytes are counted as well.
    """

    def __init__(self, exclude: Iterable[Tensor] = (), device: str | None = None) -> None:
        super().__init__(exclude, device)
        self.operators = 0
        self.synchronisations = 0
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        name = func._schema.name
        if not func.is_view and name not in _NO_KERNEL:
            self.operators += 1
        self.synchronisations += (
            name in _WAITS
            or (name == 'aten::lift_fresh' and result.dim() > 0)  # a scalar is passed as kernel argument
            or _indexes_by_mask(name, args)
            or _crosses(name, args, kwargs, result)
        )
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        return result


def _indexes_by_mask(name: str, args: tuple) -> bool:
    if name not in ('aten::index', 'aten::index_put', 'aten::index_put_', 'aten::_index_put_impl_'):
        return False
    if name != 'aten::index' and args[2].numel() == 1:
        return False  # torch fills a mask with one value without computing its indices
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _crosses(name: str, args: tuple, kwargs: dict | None, result: Any) -> bool:
    """Return whether an operator is a copy between host and GPU for which the host waits."""
    if name not in ('aten::_to_copy', 'aten::copy_') or (kwargs or {}).get('non_blocking'):
        return False
    kinds = {leaf.device.type for leaf in tree_leaves((args, result)) if isinstance(leaf, Tensor)}
    return len(kinds) > 1
