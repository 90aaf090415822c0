"""The end-to-end twin of a block-local model."""

import copy

from mmengine.config import ConfigDict

LOCAL_KEYS = ('local_blocks', 'cuts', 'auxiliary', 'gradient', 'memory_budget')


def is_local(backbone: ConfigDict) -> bool:
    """Whether a backbone's config names a local backbone."""
    return str(backbone.get('type')).rpartition('.')[2].startswith('Local')


def plain_model(model: ConfigDict) -> ConfigDict:
    """Return a model config with the plain backbone in place of the local one: ``LocalResNet`` becomes ``ResNet``.

    Args:
        model: A detector's or segmentor's config.

    Raises:
        ValueError: Its backbone is not a local one.
    """
    model = copy.deepcopy(model)
    backbone = model['backbone']
    scope, _, name = str(backbone['type']).rpartition('.')
    if not is_local(backbone):
        raise ValueError(f'model.backbone.type={backbone["type"]!r} is not a local backbone of manpp_mm')
    backbone['type'] = '.'.join(filter(None, [scope, name.removeprefix('Local')]))
    for key in LOCAL_KEYS:
        backbone.pop(key, None)
    return model
