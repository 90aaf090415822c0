"""A hook that makes momentum branches follow the trunk."""

from collections.abc import Iterable

import torch
from mmengine.registry import HOOKS
from torch import nn

from ..backbones import LocalBackbone, find_local_backbone
from ..local import update_momentum_branches
from .model_hook import Handle, ModelHook, Optimizers
from .trunk_optimizer import trunk_optim_wrapper


@HOOKS.register_module()
class MomentumHook(ModelHook):
    """Updates the momentum branches after each optimizer step: ``gamma <- m * gamma + (1 - m) * theta``.

    With gradient accumulation, there is one update per optimizer step; a step that a loss scaler skips has none.
    Source: MAN, arXiv 2407.05623.

    Args:
        momentum: m, in [0, 1]. MMEngine's ``ExponentialMovingAverage`` calls 1 - m momentum.
        before_step: Whether theta is taken before the optimizer step, as in the authors' release, which updates inside
            forward.

    Raises:
        ValueError: ``momentum`` is outside [0, 1].
    """

    priority = 'NORMAL'
    local_only = True

    def __init__(self, momentum: float = 0.995, before_step: bool = False) -> None:
        if not 0 <= momentum <= 1:
            raise ValueError(
                f'MomentumHook: momentum={momentum} must be in [0, 1]; it is the weight of the old value, 0.995 in '
                'MAN++'
            )
        self.momentum = momentum
        self.before_step = before_step

    def changes(self, model: nn.Module, optim_wrapper: 'Optimizers | None') -> Iterable[Handle]:
        """Register the update on the optimizer that steps the trunk.

        Raises:
            ValueError: The model has no local backbone, or there is no optimizer.
        """
        backbone = find_local_backbone(model)
        if optim_wrapper is None:
            raise ValueError('MomentumHook needs an optimizer: pass its optim_wrapper')
        optimizer = trunk_optim_wrapper(optim_wrapper, backbone).optimizer
        register = optimizer.register_step_pre_hook if self.before_step else optimizer.register_step_post_hook
        return [register(_MomentumUpdate(backbone, self.momentum))]


class _MomentumUpdate:
    def __init__(self, backbone: LocalBackbone, momentum: float) -> None:
        self.backbone = backbone
        self.momentum = momentum

    def __call__(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        # A fused optimizer's step runs even if the scaler found an infinite value; only this attribute shows it.
        found_inf = getattr(optimizer, 'found_inf', None)
        update_momentum_branches(self.backbone.momentum_pairs(), self.momentum, found_inf)
