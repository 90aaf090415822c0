"""The constructor arguments of a class."""

import inspect
from collections.abc import Iterable
from difflib import get_close_matches


def refuse_unknown(keys: Iterable[str], cls: type, where: str, derived: Iterable[str] = ()) -> None:
    """Check that a class's constructor takes all given config keys.

    Args:
        keys: The config's keys.
        cls: The class.
        where: The config key that holds them, for the message.
        derived: Arguments that a config cannot set.

    Raises:
        ValueError: The constructor does not take a key.
    """
    known = constructor_parameters(cls) - {'self', 'args', 'kwargs', *derived}
    for key in sorted(set(keys) - known):
        close = get_close_matches(key, known, 1)
        way_out = f'did you mean {close[0]!r}?' if close else f'it takes {", ".join(sorted(known))}'
        raise ValueError(f'{where} has no key {key!r}: {way_out}')


def constructor_parameters(cls: type) -> set[str]:
    """Return the names of a class's constructor arguments, including those passed to its parents by ``**kwargs``."""
    names: set[str] = set()
    for parent in cls.__mro__:
        if '__init__' not in vars(parent):
            continue
        parameters = inspect.signature(vars(parent)['__init__']).parameters
        names |= set(parameters)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return names
