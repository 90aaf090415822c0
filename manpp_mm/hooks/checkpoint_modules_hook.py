"""The hook that checkpoints named modules of a model: neck and heads, once the backbone is off the peak."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from ..local import checkpointed
from ..models.local_backbone import LocalBackbone, unwrapped


@HOOKS.register_module()
class CheckpointModulesHook(Hook):
    """Recomputes named modules in backward instead of keeping their activations.

    Gradients and BatchNorm statistics stay those of the model as it is; memory falls by what the modules keep, time
    grows by their forward. A dense head whose ``forward`` maps over the levels of a pyramid is checkpointed level by
    level. Works for any detector or segmentor, with a local backbone (local or exact gradients) or a plain one.

    Args:
        modules: Names of modules as in ``model.named_modules()``: ``['neck', 'rpn_head']`` of a Faster R-CNN,
            ``['decode_head']`` of a segmentor.

    Raises:
        ValueError: ``modules`` is not a list of names. At the start of training: a name that the model does not
            have, or its local backbone. After the first iteration: a module that did not run.

    Example:
        >>> custom_hooks = [*_base_.manpp_hooks, dict(type='CheckpointModulesHook', modules=['neck', 'rpn_head'])]
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules = checked_names(modules, 'CheckpointModulesHook: modules', 'neck')
        self._undo: list[Callable[[], None]] = []
        self._unseen: dict[str, _CheckpointedCall] = {}

    def before_train(self, runner: Runner) -> None:
        """Checkpoint the modules.

        Raises:
            ValueError: See the class.
        """
        self.after_train(runner)
        self._unseen, self._undo = checkpoint_modules(unwrapped(runner.model), self.modules)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: 'dict | None' = None, outputs: 'dict | None' = None
    ) -> None:
        """After the first iteration: was every module run?

        Raises:
            ValueError: One was not.
        """
        model = unwrapped(runner.model)
        for name, call in self._unseen.items():
            if not call.ran:
                inside = [f'{name}.{child}' for child, _ in model.get_submodule(name).named_children()]
                raise ValueError(
                    f'CheckpointModulesHook: the {call.method}() of modules={name!r} did not run in training, so '
                    f'nothing was checkpointed. Remove it or name a module inside: {", ".join(inside) or "none"}'
                )
        self._unseen = {}

    def after_train(self, runner: Runner) -> None:
        """Leave the modules as they were."""
        for undo in self._undo:
            undo()
        self._undo, self._unseen = [], {}


def checkpoint_modules(
    model: nn.Module, names: Sequence[str]
) -> 'tuple[dict[str, _CheckpointedCall], list[Callable[[], None]]]':
    """Checkpoint modules of a model in training.

    Args:
        model: A detector or segmentor, unwrapped.
        names: See :class:`CheckpointModulesHook`.

    Returns:
        By name what replaces the module's ``forward`` (``forward_single`` of a head that maps over levels), and
        functions that undo it.

    Raises:
        ValueError: A name that the model does not have, or its local backbone.
    """
    calls: dict[str, _CheckpointedCall] = {}
    undo: list[Callable[[], None]] = []
    for name, module in find_modules(model, names, 'CheckpointModulesHook').items():
        if isinstance(module, LocalBackbone):
            raise ValueError(
                f'CheckpointModulesHook: {name!r} is trained block by block; to checkpoint inside it set '
                f"model.{name}.with_cp=True (units) or gradient='exact' (blocks)"
            )
        call = _CheckpointedCall(module)
        previous = vars(module).get(call.method)
        setattr(module, call.method, call)
        calls[name] = call
        undo.append(partial(restore, module, call.method, previous))
    return calls, undo[::-1]


def checked_names(names: Sequence[str], key: str, example: str) -> list[str]:
    """A hook's list of module names.

    Raises:
        ValueError: It is none; the message names the hook's key.
    """
    if isinstance(names, str) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f'{key}={names!r} must be a list of names, [{example!r}] say')
    return list(names)


def find_modules(model: nn.Module, names: Sequence[str], hook: str) -> dict[str, nn.Module]:
    """The named modules of a model.

    Raises:
        ValueError: The model does not have one; the message names the hook and what there is.
    """
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules or not name:
            known = [n for n in modules if n and n.count('.') <= 1 and not n.startswith(('backbone.', 'data_prep'))]
            raise ValueError(f'{hook}: {type(model).__name__} has no module {name!r}; there are {", ".join(known)}')
    return {name: modules[name] for name in names}


def restore(module: nn.Module, method: str, previous: Any) -> None:
    """Undo that a module's method was replaced on the module itself, by ``previous`` where there was one."""
    delattr(module, method)
    if previous is not None:
        setattr(module, method, previous)


class _CheckpointedCall:
    """A module's own method, checkpointed while the module trains."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.method = 'forward_single' if hasattr(module, 'forward_single') else 'forward'
        self.original = getattr(module, self.method)
        self.ran = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not (self.module.training and torch.is_grad_enabled()):
            return self.original(*args, **kwargs)
        self.ran = True
        return checkpointed(partial(self.original, **kwargs), *args, modules=[self.module])
