"""A hook that checkpoints named modules, such as neck and heads once the backbone no longer sets the peak."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from ..backbones import LocalBackbone
from ..local import checkpointed
from .model_hook import ModelHook, Optimizers
from .replaced_method import ReplacedMethod, checked_names, find_modules


@HOOKS.register_module()
class CheckpointModulesHook(ModelHook):
    """Recomputes named modules in backward instead of keeping their activations.

    Gradients and BatchNorm statistics do not change. It saves the memory of the modules' activations and costs one more
    forward of them. A dense head whose ``forward`` maps over pyramid levels is checkpointed level by level. Works with
    any detector or segmentor, with a local backbone (local or exact gradients) or a plain one.

    Args:
        modules: Names of modules as in ``model.named_modules()``, such as ``['neck', 'rpn_head']`` for a Faster R-CNN
            or ``['decode_head']`` for a segmentor. ``*`` matches one part of a name, as in ``['encoder.layers.*']`` for
            a DETR.

    Raises:
        ValueError: ``modules`` is not a list of names. At the start of training: the model has no module of this name,
            or it is the local backbone. After the first iteration: a module did not run.

    Example:
        >>> custom_hooks = [*_base_.manpp_hooks, dict(type='CheckpointModulesHook', modules=['neck', 'rpn_head'])]
    """

    exclusive = False

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules = checked_names(modules, 'CheckpointModulesHook: modules', 'neck')
        self._calls: dict[str, CheckpointedCall] = {}

    def changes(self, model: nn.Module, optim_wrapper: 'Optimizers | None' = None) -> 'Iterator[CheckpointedCall]':
        """Checkpoint the modules.

        Raises:
            ValueError: See the class.
        """
        self._calls = {}
        for name, module in find_modules(model, self.modules, 'CheckpointModulesHook').items():
            if isinstance(module, LocalBackbone):
                raise ValueError(
                    f'CheckpointModulesHook: {name!r} is trained block by block; to checkpoint inside it, set '
                    f"model.{name}.with_cp=True (units) or gradient='exact' (blocks)"
                )
            self._calls[name] = CheckpointedCall(module, _checkpointed_method(module))
            yield self._calls[name]

    def remove(self, model: nn.Module) -> None:
        """Restore the modules."""
        super().remove(model)
        self._calls = {}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: 'dict | None' = None, outputs: 'dict | None' = None
    ) -> None:
        """Check after the first iteration that every module ran.

        Raises:
            ValueError: A module did not run.
        """
        self.check_ran()

    def check_ran(self) -> None:
        """Check after a training step that every module ran.

        Raises:
            ValueError: A module did not run; the message names the hook's key.
        """
        for name, call in self._calls.items():
            if not call.ran:
                inside = [f'{name}.{child}' for child, _ in call.module.named_children()]
                raise ValueError(
                    f'CheckpointModulesHook: the {call.method}() of modules={name!r} did not run in training, so '
                    f'nothing was checkpointed. Remove it or name a module inside: {", ".join(inside) or "none"}'
                )
        self._calls = {}


def _checkpointed_method(module: nn.Module) -> str:
    """Return ``forward_single`` if the class whose ``forward`` runs, or a subclass of it, defines that method."""

    def defined(method: str) -> int:
        order = type(module).__mro__
        return next((place for place, kind in enumerate(order) if method in vars(kind)), len(order))

    return 'forward_single' if defined('forward_single') <= defined('forward') else 'forward'


class CheckpointedCall(ReplacedMethod):
    """A module's own method, checkpointed while the module trains."""

    ran = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the method; in training, keep only its inputs."""
        if not (self.module.training and torch.is_grad_enabled()):
            return self.original(*args, **kwargs)
        self.ran = True
        return checkpointed(partial(self.original, **kwargs), *args, modules=[self.module])
