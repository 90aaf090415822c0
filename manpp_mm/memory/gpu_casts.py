"""The casts of automatic mixed precision that a GPU makes, but a CPU does not."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

FLOAT32 = frozenset(
    {
        '__pow__', '__rdiv__', '__rpow__', 'acos', 'asin', 'binary_cross_entropy_with_logits', 'cdist',
        'cosine_embedding_loss', 'cosine_similarity', 'cosh', 'cross_entropy', 'cumprod', 'cumsum', 'dist', 'erfinv',
        'exp', 'expm1', 'group_norm', 'kl_div', 'l1_loss', 'layer_norm', 'log', 'log10', 'log1p', 'log2',
        'log_softmax', 'margin_ranking_loss', 'mse_loss', 'nll_loss', 'norm', 'normalize', 'pdist', 'pow', 'prod',
        'reciprocal', 'rsqrt', 'sinh', 'smooth_l1_loss', 'soft_margin_loss', 'softmax', 'softmin', 'softplus', 'sum',
        'tan', 'triplet_margin_loss',
    }
)  # fmt: skip
"""Functions that autocast runs in float32 on CUDA (torch's documentation of ``torch.amp``)."""


class GpuCasts(TorchFunctionMode):
    """Runs functions in float32 as a GPU's autocast would, so that a CPU's autocast to bfloat16 needs the same bytes.

    For example, a CPU's autocast leaves norms and softmax in bfloat16.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, '__name__', '') in FLOAT32 and torch.is_autocast_enabled('cpu'):
            args, kwargs = tree_map_only(Tensor, _in_float32, (args, kwargs))
        return func(*args, **kwargs)


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype is torch.bfloat16 else tensor
