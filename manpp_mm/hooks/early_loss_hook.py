"""A hook that turns a head's loss into gradients before the next head runs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.registry import HOOKS
from mmengine.structures import BaseDataElement
from torch import nn

from ..local import early_loss
from .model_hook import ModelHook, Optimizers
from .replaced_method import ReplacedMethod, checked_names, find_modules
from .trunk_optimizer import loss_scale, optim_wrapper_of


@HOOKS.register_module()
class EarlyLossHook(ModelHook):
    """Turns a head's loss into gradients of its input features immediately, which frees the head's activations.

    In a two-stage detector, RPN and RoI head share only the gradient of the pyramid. With ``heads=['rpn_head']``, the
    RPN's activations are freed before the RoI head runs, and its part of the gradient is added in backward. Gradients
    do not change, and nothing is computed twice.

    Args:
        heads: Names of heads as in ``model.named_modules()``, with MMDetection's ``loss(x, ...)`` or
            ``loss_and_predict(x, ...)``.

    Raises:
        ValueError: ``heads`` is not a list of names. At the start of training: the model has no module of this name,
            the module has no loss of its own, or several optimizers hold its parameters. At the first step: the loss
            does not start from a list of feature maps, uses another head's output, or has no term.

    Example:
        >>> custom_hooks = [*_base_.manpp_hooks, dict(type='EarlyLossHook', heads=['rpn_head'])]
    """

    exclusive = False

    def __init__(self, heads: Sequence[str]) -> None:
        self.heads = checked_names(heads, 'EarlyLossHook: heads', 'rpn_head')

    def changes(self, model: nn.Module, optim_wrapper: 'Optimizers | None') -> 'Iterator[EarlyCall]':
        """Wrap the heads' losses.

        Raises:
            ValueError: See the class.
        """
        for name, head in find_modules(model, self.heads, 'EarlyLossHook').items():
            methods = [method for method in ('loss', 'loss_and_predict') if hasattr(head, method)]
            if not methods:
                raise ValueError(f'EarlyLossHook: {name!r} ({type(head).__name__}) has no loss() of its own')
            wrapper = None if optim_wrapper is None else optim_wrapper_of(optim_wrapper, head, f'model.{name}')
            for method in methods:
                yield EarlyCall(head, method, getattr(wrapper, 'loss_scaler', None))


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


class EarlyCall(ReplacedMethod):
    """A head's ``loss`` or ``loss_and_predict`` that computes its gradients immediately while the head trains."""

    def __init__(self, module: nn.Module, method: str, loss_scaler: 'torch.amp.GradScaler | None') -> None:
        super().__init__(module, method)
        self.loss_scaler = loss_scaler

    def __call__(self, x: 'Sequence[torch.Tensor]', *args: Any, **kwargs: Any) -> Any:
        """Run the method; in training, return losses whose gradients are already computed."""
        if not (self.module.training and torch.is_grad_enabled()):
            return self.original(x, *args, **kwargs)
        self._check(x, args, kwargs)
        predicts = self.method == 'loss_and_predict'

        def head(features: tuple[torch.Tensor, ...]) -> tuple[dict, Any]:
            found = self.original(features, *args, **kwargs)
            losses, rest = found if predicts else (found, None)
            if not any('loss' in name for name in losses):
                raise ValueError(f'EarlyLossHook: {type(self.module).__name__} computes no loss: remove it from heads')
            return losses, rest

        scale = loss_scale(self.loss_scaler, x[0].device)
        losses, predictions = early_loss(head, x, self.module.parameters(), scale)
        return (losses, predictions) if predicts else losses

    def _check(self, x: Any, args: tuple, kwargs: dict) -> None:
        name = type(self.module).__name__
        if not (isinstance(x, (list, tuple)) and all(isinstance(level, torch.Tensor) for level in x)):
            raise ValueError(f'EarlyLossHook: the loss of {name} does not start from a list of feature maps')
        if _carries_gradient(args) or _carries_gradient(kwargs):
            raise ValueError(
                f"EarlyLossHook: the loss of {name} uses another head's output, whose gradient would be lost: remove "
                'it from heads'
            )
