"""The class behind a config's ``type``, in whatever way it is written."""

from collections.abc import Mapping
from typing import Any

from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS, DefaultScope

from .arguments import constructor_parameters

_REGISTRIES = dict(model=MODELS, hook=HOOKS, transform=TRANSFORMS, metric=METRICS, dataset=DATASETS)


def named_class(name: Any, kind: str, scope: str | None = None) -> type | None:
    """Find what a config's ``type`` means.

    Args:
        name: A class, as MMEngine's Python configs hold it; its registered name, with or without its package's scope;
            or its import path.
        kind: ``'model'``, ``'hook'``, ``'transform'``, ``'metric'`` or ``'dataset'``.
        scope: The config's ``default_scope``.

    Returns:
        The class, or None if nothing of that name is registered or what is registered is no class.
    """
    if isinstance(name, str):
        registry = _REGISTRIES[kind]
        with DefaultScope.overwrite_default_scope(scope), registry.switch_scope_and_registry(scope) as here:
            try:
                name = here.get(name)
            except (ImportError, KeyError):  # the first part of a path that is no package's scope
                return None
    return name if isinstance(name, type) else None


def kind_of(config: Mapping) -> str:
    """A ``type``'s name without its package's scope or path, '' without a type."""
    kind = config.get('type') or ''
    return (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]


def unregistered(name: Any, kind: str, scope: str | None = None) -> str:
    """For a message: what to do if nothing of a name is registered, '' if something is."""
    if named_class(name, kind, scope) is not None:
        return ''
    return ', nor is anything of that name registered: name the module that registers it in custom_imports'


def plain_of(cls: type) -> type | None:
    """What stands in for a class of this package where it is not installed; None: nothing, it is left out."""
    return getattr(cls, 'plain', None)


def as_plain(config: Mapping, cls: type, kind: str, scope: str | None = None) -> dict[str, Any]:
    """A config with the plain twin of its class: the twin's name or import path, and no argument that the twin lacks.

    Args:
        config: It names ``cls``; left as it is.
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
        # A class itself would not survive a config's way through a file.
        name = f'{plain.__module__}.{plain.__qualname__}'
    return {key: value for key, value in config.items() if key not in own} | dict(type=name)
