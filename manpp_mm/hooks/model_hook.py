"""What this package's hooks share: how they come onto a model and leave it, and what they are without this package."""

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
    """What undoes a change: torch's ``RemovableHandle``, or one of ours."""

    def remove(self) -> None:
        """Undo it."""


_applied: 'WeakKeyDictionary[nn.Module, list[tuple[ModelHook, Handle]]]' = WeakKeyDictionary()
"""What is applied to a model and by which hook, in order."""


class TrainingHook(Hook):
    """A hook of this package.

    Attributes:
        plain: What of MMLab's stands in for it where this package is not installed; None: only training needs it, and a
            published config leaves it out.
        local_only: Whether it needs a local backbone; a comparison leaves it out of the variants without one.
    """

    plain: ClassVar[type | None] = None
    local_only: ClassVar[bool] = False


class ModelHook(TrainingHook):
    """A hook that changes a model for the length of a training, with a Runner or without one.

    ``apply(model, optim_wrapper)`` changes the model, ``remove(model)`` undoes it. A subclass defines :meth:`changes`.
    Before a run everything is removed that an interrupted training left on the model, whoever applied it.

    Attributes:
        exclusive: Whether a model takes one hook of a class; the second replaces the first.
    """

    priority = 'ABOVE_NORMAL'
    exclusive: ClassVar[bool] = True

    def changes(self, model: nn.Module, optim_wrapper: 'Optimizers | None') -> Iterable[Handle]:
        """Change a model.

        Args:
            model: A detector or segmentor, unwrapped.
            optim_wrapper: What steps it; None without an optimizer.

        Returns:
            What undoes the changes.
        """
        raise TypeError(f'{type(self).__name__} must define changes()')

    def apply(self, model: nn.Module, optim_wrapper: 'Optimizers | None' = None) -> None:
        """Change a model until :meth:`remove`; a second call begins anew.

        Args:
            model: A detector or segmentor, unwrapped.
            optim_wrapper: What steps it: its loss scaler scales local gradients, its optimizer moves momentum branches.
        """
        _undo(model, lambda hook: hook is self or (self.exclusive and type(hook) is type(self)))
        try:
            for handle in self.changes(model, optim_wrapper):
                _applied.setdefault(model, []).append((self, handle))
        except BaseException:
            self.remove(model)
            raise

    def remove(self, model: nn.Module) -> None:
        """Undo what this hook changed."""
        _undo(model, lambda hook: hook is self)

    def before_run(self, runner: Runner) -> None:
        """Undo what an interrupted training left, before EMAHook copies it."""
        remove_all(unwrapped(runner.model))

    def before_train(self, runner: Runner) -> None:
        """Apply the hook."""
        self.apply(unwrapped(runner.model), runner.optim_wrapper)

    def after_train(self, runner: Runner) -> None:
        """Remove the hook."""
        self.remove(unwrapped(runner.model))


def remove_all(model: nn.Module) -> None:
    """Undo what any hook of this package changed on a model."""
    _undo(model, lambda hook: True)


def _undo(model: nn.Module, which: Callable[[ModelHook], bool]) -> None:
    applied = _applied.get(model, [])
    for entry in reversed(list(applied)):  # what was put on last is taken off first
        hook, handle = entry
        if which(hook):
            handle.remove()
            applied.remove(entry)
