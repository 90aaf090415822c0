"""Resume under torch >= 2.6, where ``torch.load`` accepts tensors and allow-listed types alone.

MMEngine stores its message hub in a checkpoint: history buffers over numpy arrays. These are allowed by name; the
safety of ``weights_only=True`` stays on.
"""

import builtins
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


def _history_buffer_attribute(owner: Any, name: str) -> Any:
    """``getattr`` as MMEngine's pickled history buffers need it: HistoryBuffer's own statistics and nothing else."""
    if owner is HistoryBuffer and name in {'current', 'max', 'mean', 'min', *HistoryBuffer._statistics_methods}:
        return builtins.getattr(owner, name)
    raise TypeError(f'a checkpoint asks for the attribute {name!r} of {owner!r}; only statistics of HistoryBuffer load')


def apply() -> None:
    """Allow-list what a MMEngine checkpoint holds."""
    if not hasattr(torch.serialization, 'add_safe_globals'):
        return
    numpy_multiarray = getattr(np, '_core', None) or np.core
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            (_history_buffer_attribute, 'builtins.getattr'),
            numpy_multiarray.multiarray._reconstruct,
            numpy_multiarray.multiarray.scalar,
            # The same functions under the name that numpy 1 gave them.
            (numpy_multiarray.multiarray._reconstruct, 'numpy.core.multiarray._reconstruct'),
            (numpy_multiarray.multiarray.scalar, 'numpy.core.multiarray.scalar'),
            np.ndarray,
            np.dtype,
            *(type(np.dtype(name)) for name in ('float32', 'float64', 'int64')),
        ]
    )
