"""Base classes of the hooks: applying them to a model, removing them, and their stand-ins in a published config."""

from collections.abc import Callable, Iterable
from typing import ClassVar, Protocol, TypeAlias
from weakref import WeakKeyDictionary

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn

from ..backbones import unwrapped

Optimizers: TypeAlias = OptimWrapper | OptimWrapperDict


class Handle(Protocol):
    """An object that undoes a change: torch's ``RemovableHandle``, or one of this package."""

    def remove(self) -> None:
        """Undo the change."""


_applied: 'WeakKeyDictionary[nn.Module, list[tuple[ModelHook, Handle]]]' = WeakKeyDictionary()
"""The changes applied to each model and the hook that made them, in order."""


class TrainingHook(Hook):
    """A hook of this package.

    Attributes:
        plain: MMLab's class that replaces it where this package is not installed; None if only training needs it, then
            it is omitted from a published config.
        local_only: Whether it needs a local backbone; a comparison omits it from variants without one.
    """

    plain: ClassVar[type | None] = None
    local_only: ClassVar[bool] = False


class ModelHook(TrainingHook):
    """A hook that changes a model for the duration of a training, with or without a Runner.

    ``apply(model, optim_wrapper)`` changes the model, ``remove(model)`` undoes it. A subclass defines :meth:`changes`.
    Before a run, all changes that an interrupted training left on the model are removed, whichever hook made them.

    Attributes:
        exclusive: Whether a model takes only one hook of a class; a second one replaces the first.
    """

    priority = 'ABOVE_NORMAL'
    exclusive: ClassVar[bool] = True

    def changes(self, model: nn.Module, optim_wrapper: 'Optimizers | None') -> Iterable[Handle]:
        """Change a model.

        Args:
            model: A detector or segmentor, unwrapped.
            optim_wrapper: The wrapper of its optimizer, or None.

        Returns:
            Handles that undo the changes.
        """
        raise TypeError(f'{type(self).__name__} must define changes()')

    def apply(self, model: nn.Module, optim_wrapper: 'Optimizers | None' = None) -> None:
        """Change a model until :meth:`remove`; a second call replaces the first.

        Args:
            model: A detector or segmentor, unwrapped.
            optim_wrapper: The wrapper of its optimizer: its loss scaler scales local gradients, its optimizer's steps
                trigger updates of momentum branches.
        """
        _undo(model, lambda hook: hook is self or (self.exclusive and type(hook) is type(self)))
        try:
            for handle in self.changes(model, optim_wrapper):
                _applied.setdefault(model, []).append((self, handle))
        except BaseException:
            self.remove(model)
            raise

    def remove(self, model: nn.Module) -> None:
        """Undo the changes of this hook."""
        _undo(model, lambda hook: hook is self)

    def before_run(self, runner: Runner) -> None:
        """Undo the changes of an interrupted training, before EMAHook copies the model."""
        remove_all(unwrapped(runner.model))

    def before_train(self, runner: Runner) -> None:
        """Apply the hook."""
        self.apply(unwrapped(runner.model), runner.optim_wrapper)

    def after_train(self, runner: Runner) -> None:
        """Remove the hook."""
        self.remove(unwrapped(runner.model))


def remove_all(model: nn.Module) -> None:
    """Undo the changes of all hooks of this package on a model."""
    _undo(model, lambda hook: True)


def _undo(model: nn.Module, which: Callable[[ModelHook], bool]) -> None:
    applied = _applied.get(model, [])
    for entry in reversed(list(applied)):  # last applied, first removed
        hook, handle = entry
        if which(hook):
            handle.remove()
            applied.remove(entry)
