"""Lookup of the class for a config's ``type``, however it is written."""

from collections.abc import Mapping
from typing import Any

from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS, DefaultScope

from .arguments import constructor_parameters

_REGISTRIES = dict(model=MODELS, hook=HOOKS, transform=TRANSFORMS, metric=METRICS, dataset=DATASETS)


def named_class(name: Any, kind: str, scope: str | None = None) -> type | None:
    """Return the class for a config's ``type``.

    Args:
        name: A class, as in MMEngine's Python configs; its registered name, with or without the package's scope; or
            its import path.
        kind: ``'model'``, ``'hook'``, ``'transform'``, ``'metric'`` or ``'dataset'``.
        scope: The config's ``default_scope``.

    Returns:
        The class, or None if the name is not registered or is not that of a class.
    """
    if isinstance(name, str):
        registry = _REGISTRIES[kind]
        with DefaultScope.overwrite_default_scope(scope), registry.switch_scope_and_registry(scope) as here:
            try:
                name = here.get(name)
            except (ImportError, KeyError):  # a path whose first part is not a scope
                return None
    return name if isinstance(name, type) else None


def kind_of(config: Mapping) -> str:
    """Return the name of a ``type`` without scope or path, '' without a type."""
    kind = config.get('type') or ''
    return (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]


def unregistered(name: Any, kind: str, scope: str | None = None) -> str:
    """Return advice for a message if a name is not registered, '' if it is."""
    if named_class(name, kind, scope) is not None:
        return ''
    return ', and this name is not registered: add the module that registers it to custom_imports'


def plain_of(cls: type) -> type | None:
    """Return the class that replaces one of this package where it is not installed, None if it is simply omitted."""
    return getattr(cls, 'plain', None)


def as_plain(config: Mapping, cls: type, kind: str, scope: str | None = None) -> dict[str, Any]:
    """Return a config for the plain twin of its class: the twin's name or import path, and only its arguments.

    Args:
        config: A config of ``cls``; not modified.
        cls: A class of this package, or a subclass, with a twin ``plain``.
        kind, scope: See :func:`named_class`.
    """
    plain = plain_of(cls)
    assert plain is not None
    own = constructor_parameters(cls) - constructor_parameters(plain)
    prefix, _, _ = str(config['type']).rpartition('.')
    name = '.'.join(filter(None, [prefix, plain.__name__]))
    registered = isinstance(config['type'], str) and '.' not in prefix and named_class(name, kind, scope) is plain
    if not registered:
        # A class itself could not be written to a file.
        name = f'{plain.__module__}.{plain.__qualname__}'
    return {key: value for key, value in config.items() if key not in own} | dict(type=name)
