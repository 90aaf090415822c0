"""Resuming with torch >= 2.6, where ``torch.load`` accepts only tensors and allow-listed types.

MMEngine stores its message hub in a checkpoint: history buffers with numpy arrays. These types are added to the allow
list; ``weights_only=True`` stays in effect.
"""

import builtins
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


def _history_buffer_attribute(owner: Any, name: str) -> Any:
    """Replace ``getattr`` for MMEngine's pickled history buffers; allows only HistoryBuffer's own statistics."""
    if owner is HistoryBuffer and name in {'current', 'max', 'mean', 'min', *HistoryBuffer._statistics_methods}:
        return builtins.getattr(owner, name)
    raise TypeError(f'a checkpoint asks for the attribute {name!r} of {owner!r}; only statistics of HistoryBuffer load')


def apply() -> None:
    """Add the types in MMEngine's checkpoints to the allow list."""
    if not hasattr(torch.serialization, 'add_safe_globals'):
        return
    numpy_multiarray = getattr(np, '_core', None) or np.core
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            (_history_buffer_attribute, 'builtins.getattr'),
            numpy_multiarray.multiarray._reconstruct,
            numpy_multiarray.multiarray.scalar,
            # The same functions under their names in numpy 1.
            (numpy_multiarray.multiarray._reconstruct, 'numpy.core.multiarray._reconstruct'),
            (numpy_multiarray.multiarray.scalar, 'numpy.core.multiarray.scalar'),
            np.ndarray,
            np.dtype,
            *(type(np.dtype(name)) for name in ('float32', 'float64', 'int64')),
        ]
    )
