"""The hook that lets momentum branches follow the trunk."""

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..local import update_momentum_branches
from ..models.local_backbone import LocalBackbone, find_local_backbone, unwrapped
from .trunk_optimizer import trunk_optim_wrapper


@HOOKS.register_module()
class MomentumHook(Hook):
    """Updates the momentum branches after each optimizer step: ``gamma <- m * gamma + (1 - m) * theta``.

    Once a step under gradient accumulation, not at all for a step that a loss scaler skips. Source: MAN,
    arXiv 2407.05623.

    Args:
        momentum: m, in [0, 1]. MMEngine's ``ExponentialMovingAverage`` calls 1 - m momentum.

    Raises:
        ValueError: ``momentum`` is outside [0, 1].
    """

    def __init__(self, momentum: float = 0.995) -> None:
        if not 0 <= momentum <= 1:
            raise ValueError(
                f'MomentumHook: momentum={momentum} must lie in [0, 1]; it is the weight of the old value, 0.995 in '
                'MAN++'
            )
        self.momentum = momentum
        self._handle: torch.utils.hooks.RemovableHandle | None = None

    def before_train(self, runner: Runner) -> None:
        """Register the update on the optimizer that steps the trunk."""
        backbone = find_local_backbone(unwrapped(runner.model))
        optimizer = trunk_optim_wrapper(runner.optim_wrapper, backbone).optimizer
        self.after_train(runner)
        self._handle = optimizer.register_step_post_hook(_MomentumUpdate(backbone, self.momentum))

    def after_train(self, runner: Runner) -> None:
        """Remove the update."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


class _MomentumUpdate:
    def __init__(self, backbone: LocalBackbone, momentum: float) -> None:
        self.backbone = backbone
        self.momentum = momentum

    def __call__(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        # A fused optimizer's step runs even when the scaler found an infinity; then only this attribute tells.
        found_inf = getattr(optimizer, 'found_inf', None)
        update_momentum_branches(self.backbone.momentum_pairs(), self.momentum, found_inf)
