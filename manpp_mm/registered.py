"""The class behind a config's ``type``, in whatever way it is written."""

from collections.abc import Mapping
from typing import Any

from mmengine.registry import HOOKS, METRICS, MODELS, TRANSFORMS, DefaultScope

from .arguments import constructor_parameters

_REGISTRIES = dict(model=MODELS, hook=HOOKS, transform=TRANSFORMS, metric=METRICS)


def named_class(name: Any, kind: str, scope: str | None = None) -> type | None:
    """Find what a config's ``type`` means.

    Args:
        name: A class, as MMEngine's Python configs hold it; its registered name, with or without its package's scope;
            or its import path.
        kind: ``'model'``, ``'hook'``, ``'transform'`` or ``'metric'``.
        scope: The config's ``default_scope``.

    Returns:
        The class, or None if nothing of that name is registered or what is registered is no class.
    """
    if isinstance(name, str):
        registry = _REGISTRIES[kind]
        with DefaultScope.overwrite_default_scope(scope), registry.switch_scope_and_registry(scope) as here:
            name = here.get(name)
    return name if isinstance(name, type) else None


def as_plain(config: Mapping, cls: type) -> dict[str, Any]:
    """A config with the plain twin of its class: the twin's name or import path, and no argument that the twin lacks.

    Args:
        config: It names ``cls``; left as it is.
        cls: A class of this package, or a subclass, with a twin ``plain``.
    """
    own = constructor_parameters(cls) - constructor_parameters(cls.plain)
    found = {key: value for key, value in config.items() if key not in own}
    scope, _, _ = str(config['type']).rpartition('.')
    by_name = isinstance(config['type'], str) and '.' not in scope
    twin = cls.plain
    # A class itself would not survive a config's way through a file.
    path = f'{twin.__module__}.{twin.__qualname__}'
    found['type'] = '.'.join(filter(None, [scope, twin.__name__])) if by_name else path
    return found
