"""What a config's step starts with: its input and what is in memory before it."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Any

from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.registry import MODELS, init_default_scope

from ..backbones import local_class
from ..backbones.config import with_cuts, without_networks
from ..registered import named_class
from .footprint import padded, static_bytes

Size = tuple[int, int]


def training_input(config: Config) -> tuple[int, Size]:
    """Images a step and the largest height and width that they come to, from the config's training loader.

    Raises:
        ValueError: Its pipeline does not tell.
    """
    loader = config.train_dataloader
    size = _loaded(loader.dataset)
    preprocessor = config.model.get('data_preprocessor') or {}
    if preprocessor.get('size'):
        size = tuple(preprocessor['size'])
    for augment in preprocessor.get('batch_augments') or []:
        size = _batch_augmented(augment, size)
    if size is None:
        raise ValueError(
            'the training pipeline names no image size (Resize or RandomCrop): give it, --input N H W of tools/fit.py'
        )
    return loader.batch_size, size


def _loaded(dataset: Mapping) -> Size | None:
    """Size of a data set's images; of several sets' the largest."""
    parts = [dataset['dataset']] if 'dataset' in dataset else list(dataset.get('datasets') or [])
    sizes = [size for size in map(_loaded, parts) if size is not None]
    return _transformed(dataset.get('pipeline') or [], max(sizes, key=_area, default=None))


def _transformed(pipeline: Iterable[Mapping], size: Size | None) -> Size | None:
    for transform in pipeline:
        size = _after(transform, size)
    return size


def _after(transform: Mapping, size: Size | None) -> Size | None:
    """Height and width after a transform."""
    kind = transform['type'] if isinstance(transform['type'], str) else transform['type'].__name__
    kind = kind.rpartition('.')[2]
    if kind in ('Resize', 'RandomChoiceResize', 'RandomResize', 'FixScaleResize', 'ResizeShortestEdge'):
        return _resized(transform, size)
    if kind in ('RandomCrop', 'RandomCenterCropPad', 'RandomResizedCrop'):
        crop = transform.get('crop_size') or transform.get('scale')
        crop = (crop, crop) if isinstance(crop, int) else crop
        if crop is None or isinstance(crop[0], float):  # a share of the image
            return size
        padded_up = kind != 'RandomCrop'
        return tuple(crop) if size is None or padded_up else tuple(map(min, crop, size))
    if kind == 'Pad' and transform.get('size'):
        width, height = transform['size']
        return (height, width)
    if kind in ('Mosaic', 'CachedMosaic', 'RandomMosaic'):
        width, height = transform['img_scale']
        return (2 * height, 2 * width)
    if kind == 'RandomAffine' and size is not None:
        height, width = transform.get('border') or (0, 0)
        return (size[0] + 2 * height, size[1] + 2 * width)
    if kind == 'RandomChoice':
        branches = (_transformed(branch, size) for branch in transform['transforms'])
        return max((branch for branch in branches if branch is not None), key=_area, default=size)
    return size


def _resized(transform: Mapping, size: Size | None) -> Size | None:
    scales = transform.get('scales') or transform.get('scale')
    if scales is None:
        factor = transform.get('scale_factor')
        return None if size is None or not isinstance(factor, (int, float)) else _scaled(size, factor)
    scales = list(scales) if isinstance(scales, Sequence) and isinstance(scales[0], Sequence) else [scales]
    longest = transform.get('max_size')
    if longest is not None:  # scales are lengths of the shorter side
        shorter = max(max(s) if isinstance(s, Sequence) else s for s in scales)
        return (shorter, longest)
    sizes = []
    for scale in scales:
        width, height = (scale, scale) if isinstance(scale, int) else scale
        if width < 0 or height < 0:
            return None  # one side alone: the images decide
        # With their ratio kept, the scale's longer side is a limit of the images' longer side.
        keeps = transform.get('keep_ratio', transform.get('resize_cfg', {}).get('keep_ratio', True))
        sizes.append((min(width, height), max(width, height)) if keeps else (height, width))
    return _scaled(max(sizes, key=_area), max(transform.get('ratio_range') or (1,)))


def _batch_augmented(augment: Mapping, size: Size | None) -> Size | None:
    if augment['type'] == 'BatchFixedSizePad':
        return tuple(augment['size']) if size is None else tuple(map(max, augment['size'], size))
    if augment['type'] == 'BatchResize':
        return (min(augment['scale']), max(augment['scale']))
    if augment['type'] == 'BatchSyncRandomResize' and size is not None:
        height = max(augment['random_size_range'])
        return (height, round(height * size[1] / size[0]))
    return size


def _area(size: Size) -> int:
    return size[0] * size[1]


def _scaled(size: Size, factor: float) -> Size:
    return (ceil(size[0] * factor), ceil(size[1] * factor))


def bytes_before_step(config: Config, batch: int, size: Size, local: bool) -> int:
    """Bytes of parameters, buffers, optimizer state and a batch of images; ``local``: see :func:`model_bytes`."""
    return model_bytes(config, local) + batch * input_bytes(padded(config, size))


def model_bytes(config: Config, local: bool = True) -> int:
    """Bytes of a model's parameters, buffers, optimizer state and averaged weights.

    Args:
        config: A detector's or segmentor's.
        local: Whether a local backbone's auxiliary networks count.
    """
    init_default_scope(config.get('default_scope', 'mmengine'))
    model = copy.deepcopy(config.model)
    if not local and local_class(config) is not None:
        model.backbone = without_networks(with_cuts(model.backbone, []))
    built = MODELS.build(model)
    copies = 1 + sum(_averages(hook, config) for hook in config.get('custom_hooks') or [])
    return static_bytes(config, built.parameters(), built.buffers(), copies)


def _averages(hook: Mapping, config: Config) -> bool:
    kind: Any = named_class(hook['type'], 'hook', config.get('default_scope'))
    return kind is not None and issubclass(kind, EMAHook)


def input_bytes(size: Size) -> int:
    return 3 * 4 * size[0] * size[1]
