"""The hook that checkpoints named modules of a model: neck and heads, once the backbone is off the peak."""

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

    Gradients and BatchNorm statistics stay those of the model as it is; memory falls by what the modules keep, time
    grows by their forward. A dense head whose ``forward`` maps over the levels of a pyramid is checkpointed level by
    level. Works for any detector or segmentor, with a local backbone (local or exact gradients) or a plain one.

    Args:
        modules: Names of modules as in ``model.named_modules()``: ``['neck', 'rpn_head']`` of a Faster R-CNN,
            ``['decode_head']`` of a segmentor. ``*`` stands for one part of a name: ``['encoder.layers.*']`` of a DETR.

    Raises:
        ValueError: ``modules`` is not a list of names. At the start of training: a name that the model does not
            have, or its local backbone. After the first iteration: a module that did not run.

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
                    f'CheckpointModulesHook: {name!r} is trained block by block; to checkpoint inside it set '
                    f"model.{name}.with_cp=True (units) or gradient='exact' (blocks)"
                )
            self._calls[name] = CheckpointedCall(module, _checkpointed_method(module))
            yield self._calls[name]

    def remove(self, model: nn.Module) -> None:
        """Leave the modules as they were."""
        super().remove(model)
        self._calls = {}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: 'dict | None' = None, outputs: 'dict | None' = None
    ) -> None:
        """After the first iteration: was every module run?

        Raises:
            ValueError: One was not.
        """
        self.check_ran()

    def check_ran(self) -> None:
        """After a training step: was every module run?

        Raises:
            ValueError: One was not; the message names the hook's key.
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
    """``forward_single`` where the class whose ``forward`` runs, or one derived from it, defines that."""

    def defined(method: str) -> int:
        order = type(module).__mro__
        return next((place for place, kind in enumerate(order) if method in vars(kind)), len(order))

    return 'forward_single' if defined('forward_single') <= defined('forward') else 'forward'


class CheckpointedCall(ReplacedMethod):
    """A module's own method, checkpointed while the module trains."""

    ran = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the method; in training keep its inputs alone."""
        if not (self.module.training and torch.is_grad_enabled()):
            return self.original(*args, **kwargs)
        self.ran = True
        return checkpointed(partial(self.original, **kwargs), *args, modules=[self.module])
