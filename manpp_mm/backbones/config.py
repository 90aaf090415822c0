"""The local backbone of a config: its class, its plain twin, the mode in which it trains."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from ..local import Cut
from ..mode import END_TO_END, LOCAL, Mode
from ..registered import as_plain, named_class
from .local_backbone import LocalBackbone


def local_class(config: 'Config | Mapping') -> type[LocalBackbone] | None:
    """The class of a config's local backbone, None for another backbone or one that is not registered here.

    Args:
        config: A whole config: ``default_scope`` says in which package a name is looked up.
    """
    backbone = (config.get('model') or {}).get('backbone') or {}
    found = named_class(backbone.get('type'), 'model', config.get('default_scope'))
    return found if found is not None and issubclass(found, LocalBackbone) else None


def checked_local_class(config: 'Config | Mapping') -> type[LocalBackbone]:
    """The class of a config's local backbone.

    Raises:
        ValueError: The config has another backbone.
    """
    found = local_class(config)
    if found is None:
        kind = ((config.get('model') or {}).get('backbone') or {}).get('type')
        raise ValueError(f'model.backbone.type={kind!r} is not a local backbone of manpp_mm')
    return found


def plain_model(config: 'Config | Mapping') -> ConfigDict:
    """A config's model with the plain twin in place of the local backbone: ``LocalResNet`` becomes ``ResNet``.

    Args:
        config: A whole config, left as it is.

    Raises:
        ValueError: Its backbone is not a local one.
    """
    model = copy.deepcopy(config['model'])
    model['backbone'] = ConfigDict(as_plain(model['backbone'], checked_local_class(config)))
    return model


def mode_of(config: 'Config | Mapping') -> Mode:
    """The mode that a config trains in."""
    backbone = config['model']['backbone']
    mode = END_TO_END
    if local_class(config) is not None:
        mode = Mode(backbone.get('gradient', LOCAL.backbone))
    return mode.with_units_checkpointed(bool(backbone.get('with_cp')))


def with_cuts(backbone: Mapping, cuts: Sequence[Cut], **keys: Any) -> dict:
    """A deep copy of a backbone's config with other cuts; nothing else says where to cut."""
    return dict(copy.deepcopy(backbone), cuts=list(cuts), local_blocks=None, memory_budget=None, **keys)
