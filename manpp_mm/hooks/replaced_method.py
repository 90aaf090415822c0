"""Methods of a model's modules that a hook replaces for the duration of a training."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn


class ReplacedMethod:
    """Replaces a method of one module; the method is kept as ``original``.

    Args:
        module: The module.
        method: The name of its method, whose calls are redirected to this object.
    """

    def __init__(self, module: nn.Module, method: str) -> None:
        self.module = module
        self.method = method
        self.original = getattr(module, method)
        self._previous = vars(module).get(method)
        setattr(module, method, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Handle a call of the method."""
        raise TypeError(f'{type(self).__name__} must define __call__()')

    def remove(self) -> None:
        """Restore the method, or unlink this object from a chain of replacements."""
        above, found = None, vars(self.module).get(self.method)
        while isinstance(found, ReplacedMethod) and found is not self:
            above, found = found, found._previous
        if found is not self:
            return
        if above is not None:
            above._previous, above.original = self._previous, self.original
            return
        delattr(self.module, self.method)
        if self._previous is not None:
            setattr(self.module, self.method, self._previous)


def checked_names(names: Sequence[str], key: str, example: str) -> list[str]:
    """Return a hook's list of module names.

    Raises:
        ValueError: It is not a list of names; the message names the hook's key.
    """
    if isinstance(names, str) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f'{key}={names!r} must be a list of names, such as [{example!r}]')
    return list(names)


def means(pattern: str, name: str) -> bool:
    """Return whether a pattern matches a module name; ``*`` matches one part, as in ``encoder.layers.*``."""
    return re.fullmatch(re.escape(pattern).replace(r'\*', '[^.]+'), name) is not None


def without_meant(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Return the names that no pattern matches."""
    patterns = list(patterns)
    return [name for name in names if not any(means(pattern, name) for pattern in patterns)]


def find_modules(model: nn.Module, patterns: Sequence[str], hook: str) -> dict[str, nn.Module]:
    """Return the modules of a model that match patterns, by name.

    Raises:
        ValueError: A pattern matches no module; the message names the hook and the available modules.
    """
    modules = dict(model.named_modules())
    found: dict[str, nn.Module] = {}
    for pattern in patterns:
        meant = {name: module for name, module in modules.items() if name and means(pattern, name)}
        if not meant:
            known = [n for n in modules if n and n.count('.') <= 1 and not n.startswith(('backbone.', 'data_prep'))]
            raise ValueError(f'{hook}: {type(model).__name__} has no module {pattern!r}; it has {", ".join(known)}')
        found |= meant
    return found
