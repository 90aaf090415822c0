"""The hook that turns a head's loss into gradients before the next head runs."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn

from ..local import early_loss
from ..models.local_backbone import unwrapped
from .checkpoint_modules_hook import checked_names, find_modules, restore
from .trunk_optimizer import loss_scale


@HOOKS.register_module()
class EarlyLossHook(Hook):
    """Turns a head's loss into gradients of its input features at once, which frees the head's activations.

    In a two-stage detector RPN and RoI head meet only in the gradient of the pyramid: with
    ``heads=['rpn_head']`` the RPN's activations are gone when the RoI head runs, and in backward its share of the
    gradient is there. The gradients stay those of the model as it is and nothing is computed twice.

    Args:
        heads: Names of heads as in ``model.named_modules()``, with MMDetection's ``loss(x, ...)`` or
            ``loss_and_predict(x, ...)``.

    Raises:
        ValueError: ``heads`` is not a list of names. At the start of training: a name that the model does not have,
            or a module that computes no loss from features.

    Example:
        >>> custom_hooks = [*_base_.manpp_hooks, dict(type='EarlyLossHook', heads=['rpn_head'])]
    """

    def __init__(self, heads: Sequence[str]) -> None:
        self.heads = checked_names(heads, 'EarlyLossHook: heads', 'rpn_head')
        self._undo: list[Callable[[], None]] = []

    def before_train(self, runner: Runner) -> None:
        """Wrap the heads' losses.

        Raises:
            ValueError: See the class.
        """
        self.after_train(runner)
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        self._undo = take_losses_early(unwrapped(runner.model), self.heads, scaler)

    def after_train(self, runner: Runner) -> None:
        """Leave the heads as they were."""
        for undo in self._undo:
            undo()
        self._undo = []


def take_losses_early(
    model: nn.Module, names: Sequence[str], loss_scaler: 'torch.amp.GradScaler | None' = None
) -> list[Callable[[], None]]:
    """Wrap the losses of heads.

    Args:
        model: A detector, unwrapped.
        names: See :class:`EarlyLossHook`.
        loss_scaler: The scaler of float16 training.

    Returns:
        Functions that undo it.

    Raises:
        ValueError: See :class:`EarlyLossHook`.
    """
    undo: list[Callable[[], None]] = []
    for name, module in find_modules(model, names, 'EarlyLossHook').items():
        methods = [method for method in ('loss', 'loss_and_predict') if hasattr(module, method)]
        if not methods:
            raise ValueError(f'EarlyLossHook: {name!r} ({type(module).__name__}) has no loss() of its own')
        for method in methods:
            previous = vars(module).get(method)
            setattr(module, method, _EarlyCall(module, method, loss_scaler))
            undo.append(partial(restore, module, method, previous))
    return undo[::-1]


def _carries_gradient(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.requires_grad
    if isinstance(value, Mapping):
        return any(map(_carries_gradient, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_carries_gradient, value))
    if isinstance(value, BaseDataElement):
        return any(map(_carries_gradient, value.values()))
    return False


class _EarlyCall:
    """A head's ``loss`` or ``loss_and_predict``, its gradients taken at once while the head trains."""

    def __init__(self, module: nn.Module, method: str, loss_scaler: 'torch.amp.GradScaler | None') -> None:
        self.module = module
        self.original = getattr(module, method)
        self.predicts = method == 'loss_and_predict'
        self.loss_scaler = loss_scaler

    def __call__(self, x: 'Sequence[torch.Tensor]', *args: Any, **kwargs: Any) -> Any:
        if not (self.module.training and torch.is_grad_enabled()):
            return self.original(x, *args, **kwargs)

        self._check(x, args, kwargs)

        def head(features: tuple[torch.Tensor, ...]) -> tuple[dict, Any]:
            found = self.original(features, *args, **kwargs)
            return found if self.predicts else (found, None)

        scale = loss_scale(self.loss_scaler, x[0].device)
        losses, predictions = early_loss(head, x, self.module.parameters(), scale)
        return (losses, predictions) if self.predicts else losses

    def _check(self, x: Any, args: tuple, kwargs: dict) -> None:
        name = type(self.module).__name__
        if not (isinstance(x, (list, tuple)) and all(isinstance(level, torch.Tensor) for level in x)):
            raise ValueError(f'EarlyLossHook: the loss of {name} does not start from a list of feature maps')
        if _carries_gradient(args) or _carries_gradient(kwargs):
            raise ValueError(
                f"EarlyLossHook: the loss of {name} takes another head's output, whose gradient would be lost: remove "
                'it from heads'
            )
