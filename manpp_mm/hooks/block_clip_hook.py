"""A hook that clips the gradients of each local block by their own norm."""

from collections.abc import Iterable
from typing import Any

import torch
from mmengine.logging import MessageHub
from mmengine.registry import HOOKS
from torch import nn
from torch.nn.utils import clip_grad_norm_

from ..backbones import LocalBackbone, find_local_backbone
from .model_hook import Handle, ModelHook, Optimizers
from .trunk_optimizer import optim_wrapper_of


@HOOKS.register_module()
class BlockClipHook(ModelHook):
    """Clips the gradients of each local block, with its auxiliary network, by their own norm.

    ``optim_wrapper.clip_grad`` clips all gradients by one norm, so that a block with large gradients shortens the steps
    of all others. Here, each block but the last is a group, and the last block, neck and heads are one. The norms are
    logged as ``block0.grad_norm``, ... and ``grad_norm``. Remove ``optim_wrapper.clip_grad``, or gradients are clipped
    twice.

    Args:
        max_norm: The largest norm of a group.
        norm_type, error_if_nonfinite, foreach: See ``torch.nn.utils.clip_grad_norm_``.

    Raises:
        ValueError: ``max_norm`` is not positive. At the start of training: ``optim_wrapper.clip_grad`` is set as well,
            several optimizers hold the model's parameters, or a fused optimizer unscales float16 gradients itself.

    Example:
        >>> custom_hooks = [*_base_.manpp_hooks, dict(type='BlockClipHook', max_norm=35)]
        >>> optim_wrapper = dict(clip_grad=None)
    """

    local_only = True

    def __init__(self, max_norm: float, **kwargs: Any) -> None:
        if not isinstance(max_norm, (int, float)) or max_norm <= 0:
            raise ValueError(f'BlockClipHook: max_norm={max_norm!r} must be a positive number')
        self.kwargs = dict(max_norm=max_norm, **kwargs)

    def changes(self, model: nn.Module, optim_wrapper: 'Optimizers | None') -> Iterable[Handle]:
        """Register the clipping on the optimizer.

        Raises:
            ValueError: See the class.
        """
        backbone = find_local_backbone(model)
        if optim_wrapper is None:
            raise ValueError('BlockClipHook needs an optimizer: pass its optim_wrapper')
        wrapper = optim_wrapper_of(optim_wrapper, model, 'the model')
        if getattr(wrapper, 'clip_grad_kwargs', None):
            raise ValueError('BlockClipHook: set optim_wrapper.clip_grad=None, or gradients are clipped twice')
        if getattr(wrapper, 'loss_scaler', None) is not None and wrapper.optimizer.defaults.get('fused'):
            raise ValueError('BlockClipHook: optim_wrapper.optimizer.fused=True unscales gradients too late: remove it')
        return [wrapper.optimizer.register_step_pre_hook(_Clipping(model, backbone, self.kwargs))]


class _Clipping:
    def __init__(self, model: nn.Module, backbone: LocalBackbone, kwargs: dict) -> None:
        self.model = model
        self.backbone = backbone
        self.kwargs = kwargs

    def __call__(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        groups = {f'block{j}.': block.local_parameters for j, block in enumerate(self.backbone.blocks()[:-1])}
        local = {id(p) for group in groups.values() for p in group}
        groups[''] = [p for p in self.model.parameters() if id(p) not in local]
        norms = {}
        for name, group in groups.items():
            received = [p for p in group if p.grad is not None]
            if received:
                norms[f'train/{name}grad_norm'] = clip_grad_norm_(received, **self.kwargs)
        values = torch.stack([*norms.values()]).tolist() if norms else []  # one synchronization
        MessageHub.get_current_instance().update_scalars(dict(zip(norms, values, strict=True)))
