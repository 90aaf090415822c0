"""The local backbone of a config: its class, its plain twin and its training mode."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from mmengine.config import Config, ConfigDict

from ..local import Cut
from ..mode import END_TO_END, EXACT, LOCAL, Mode
from ..registered import as_plain, kind_of, named_class, unregistered
from .local_backbone import LocalBackbone


def local_class(config: 'Config | Mapping') -> type[LocalBackbone] | None:
    """Return the class of a config's local backbone, None for other backbones and unregistered ones.

    Args:
        config: A complete config; ``default_scope`` sets the package in which the name is looked up.
    """
    backbone = (config.get('model') or {}).get('backbone') or {}
    found = named_class(backbone.get('type'), 'model', config.get('default_scope'))
    return found if found is not None and issubclass(found, LocalBackbone) else None


def local_twin(name: Any, scope: str | None = None) -> type[LocalBackbone] | None:
    """Return the local class for a plain backbone, this project's before others; None if there is none.

    Args:
        name: The plain backbone's ``type``.
        scope: The config's ``default_scope``.
    """
    plain = named_class(name, 'model', scope)
    own = __name__.partition('.')[0]
    found = [kind for kind in _local_classes(scope) if kind.plain is plain]
    return min(found, key=lambda kind: kind.__module__.partition('.')[0] != own, default=None)


def plain_names(scope: str | None = None) -> list[str]:
    """Return the names of a package's plain backbones that have a local class."""
    return sorted({kind.plain.__name__ for kind in _local_classes(scope)})


def check_backbone(config: 'Config | Mapping') -> None:
    """Check that the backbone ``type`` of a config is registered.

    Raises:
        ValueError: It is not registered; the message names the closest match.
    """
    backbone, scope = (config.get('model') or {}).get('backbone') or {}, config.get('default_scope')
    name = backbone.get('type')
    if not isinstance(name, str) or named_class(name, 'model', scope) is not None:
        return
    kinds = list(_local_classes(scope))
    known = [kind.__name__ for kind in kinds] + [kind.plain.__name__ for kind in kinds]
    close = get_close_matches(kind_of(backbone), known, 1)
    hint = f'did you mean {close[0]!r}? ' if close else ''
    raise ValueError(
        f'model.backbone.type={name!r} is not registered in {scope}: {hint}docs/backbones.md lists the local '
        'backbones; for your own, add its module to custom_imports'
    )


def _local_classes(scope: str | None) -> Iterator[type[LocalBackbone]]:
    """Yield the local backbone classes of a package."""
    waiting = [LocalBackbone]
    while waiting:
        kind = waiting.pop()
        if hasattr(kind, 'plain') and _trains_in(kind, scope):
            yield kind
        waiting += kind.__subclasses__()


def _trains_in(kind: type[LocalBackbone], scope: str | None) -> bool:
    """Return whether a local class has a package's auxiliary networks; MMPretrain's backbones serve the others."""
    networks = getattr(kind, 'auxiliary_type', None)
    return scope is None or networks is None or networks.registry.scope == scope


def checked_local_class(config: 'Config | Mapping') -> type[LocalBackbone]:
    """Return the class of a config's local backbone.

    Raises:
        ValueError: The config has no local backbone.
    """
    found = local_class(config)
    if found is None:
        name = ((config.get('model') or {}).get('backbone') or {}).get('type')
        raise ValueError(
            f'model.backbone.type={name!r} is not a local backbone of manpp_mm'
            + unregistered(name, 'model', config.get('default_scope'))
        )
    return found


def plain_model(config: 'Config | Mapping') -> ConfigDict:
    """Return a config's model with the plain twin of its local backbone: ``LocalResNet`` becomes ``ResNet``.

    Args:
        config: A complete config; not modified.

    Raises:
        ValueError: Its backbone is not a local one.
    """
    model = copy.deepcopy(config['model'])
    model['backbone'] = ConfigDict(
        as_plain(model['backbone'], checked_local_class(config), 'model', config.get('default_scope'))
    )
    return model


def mode_of(config: 'Config | Mapping') -> Mode:
    """Return the mode in which a config trains."""
    backbone = config['model']['backbone']
    mode = END_TO_END
    if local_class(config) is not None:
        mode = Mode(backbone.get('gradient', LOCAL.backbone))
    return mode.with_units_checkpointed(bool(backbone.get('with_cp')))


def with_cuts(backbone: Mapping, cuts: Sequence[Cut]) -> dict:
    """Return a deep copy of a backbone's config with other cuts and no other key that sets cuts."""
    return dict(copy.deepcopy(backbone), cuts=list(cuts), local_blocks=None, memory_budget=None)


def without_networks(backbone: Mapping) -> dict:
    """Return a deep copy of a local backbone's config that builds no auxiliary networks and loads no weights."""
    return dict(copy.deepcopy(backbone), gradient=EXACT.backbone, init_cfg=None)
