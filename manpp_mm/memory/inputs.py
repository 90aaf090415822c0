"""The input of a config's training step, and the memory in use before it."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.registry import MODELS, init_default_scope

from ..backbones import local_class
from ..backbones.config import with_cuts, without_networks
from ..registered import kind_of, named_class
from .footprint import static_bytes, stepping_bytes

Size = tuple[int, int]


def training_input(config: Config) -> tuple[int, Size]:
    """Return the images per step and their largest height and width, from the config's training loader.

    Raises:
        ValueError: The pipeline does not determine the size.
    """
    loader = config.train_dataloader
    size = _loaded(loader.dataset, config.get('default_scope') != 'mmdet')
    preprocessor = config.model.get('data_preprocessor') or config.get('data_preprocessor') or {}
    if size is not None and isinstance(size, _Turnable) and loader.batch_size > 1:
        sampler = loader.get('batch_sampler')
        if sampler is None or kind_of(sampler) != 'AspectRatioBatchSampler':
            size = (max(size), max(size))  # a portrait and a landscape are padded to a square
    if preprocessor.get('size'):
        size = tuple(preprocessor['size'])
    augments = preprocessor.get('batch_augments') or []
    for augment in [] if isinstance(augments, Mapping) else augments:  # MMPretrain's do not change the size
        size = _batch_augmented(augment, size)
    if size is None:
        raise ValueError(
            'the training pipeline sets no image size (Resize or RandomCrop): set it with --input N H W of tools/fit.py'
        )
    height, width = size
    return loader.batch_size, (height, width)


def in_mixed_precision(config: Config) -> bool:
    """Return whether a config trains in mixed precision."""
    return kind_of(config.get('optim_wrapper') or {}) == 'AmpOptimWrapper'


class _Turnable(tuple[int, int]):
    """Height and width of a landscape image that may also be a portrait."""


def _loaded(dataset: Mapping, height_first: bool) -> Size | None:
    """Return the size of a data set's images; the largest size for several data sets.

    Args:
        dataset: The data set's config.
        height_first: Whether crops are (height, width); MMDetection's are (width, height).
    """
    parts = [dataset['dataset']] if 'dataset' in dataset else list(dataset.get('datasets') or [])
    sizes = [size for size in (_loaded(part, height_first) for part in parts) if size is not None]
    return _transformed(dataset.get('pipeline') or [], max(sizes, key=_area, default=None), height_first)


def _transformed(pipeline: Iterable[Mapping], size: Size | None, height_first: bool) -> Size | None:
    for transform in pipeline:
        size = _after(transform, size, height_first)
    return size


def _after(transform: Mapping, size: Size | None, height_first: bool) -> Size | None:
    """Return height and width after a transform."""
    kind = kind_of(transform)
    if kind in ('Resize', 'RandomChoiceResize', 'RandomResize', 'FixScaleResize', 'ResizeShortestEdge'):
        return _resized(transform, size)
    if kind in ('RandomCrop', 'CenterCrop', 'RandomCenterCropPad', 'RandomResizedCrop', 'EfficientNetRandomCrop'):
        return _cropped(kind, transform, size, height_first)
    if kind == 'Pad' and transform.get('size'):
        width, height = transform['size']
        return (height, width)
    if kind == 'Pad' and transform.get('pad_to_square') and size is not None:
        return (max(size), max(size))
    if kind in ('Mosaic', 'CachedMosaic', 'RandomMosaic'):
        width, height = transform['img_scale']
        return (2 * height, 2 * width)
    if kind == 'RandomAffine' and size is not None:
        height, width = transform.get('border') or (0, 0)
        return (size[0] + 2 * height, size[1] + 2 * width)
    if kind == 'RandomChoice':
        branches = (_transformed(branch, size, height_first) for branch in transform['transforms'])
        return max((branch for branch in branches if branch is not None), key=_area, default=size)
    return size


def _cropped(kind: str, transform: Mapping, size: Size | None, height_first: bool) -> Size | None:
    crop = transform.get('crop_size') or transform.get('scale')
    crop = (crop, crop) if isinstance(crop, int) else crop
    if crop is None or isinstance(crop[0], float):  # a fraction of the image
        return size
    if transform.get('crop_type') == 'absolute_range':  # (min, max) for both sides
        crop = (crop[1], crop[1])
    elif kind == 'RandomCrop' and not height_first:
        crop = crop[::-1]  # MMDetection's is width, height
    if size is None or kind != 'RandomCrop' or transform.get('pad_if_needed'):
        return crop[0], crop[1]
    if transform.get('padding'):  # MMPretrain's
        size = _padded(size, transform['padding'])
    found = min(crop[0], size[0]), min(crop[1], size[1])
    return _Turnable(found) if isinstance(size, _Turnable) and found[0] < found[1] else found


def _padded(size: Size, padding: 'int | Sequence[int]') -> Size:
    """Add padding: one number, (left and right, top and bottom) or (left, top, right, bottom)."""
    row = (padding,) * 2 if isinstance(padding, int) else tuple(padding)
    left, top, right, bottom = row * 2 if len(row) == 2 else row
    found = size[0] + top + bottom, size[1] + left + right
    return _Turnable(found) if isinstance(size, _Turnable) else found


def _resized(transform: Mapping, size: Size | None) -> Size | None:
    scales = transform.get('scales') or transform.get('scale')
    if scales is None:
        factor = transform.get('scale_factor')
        return None if size is None or not isinstance(factor, (int, float)) else _scaled(size, factor)
    scales = list(scales) if isinstance(scales, Sequence) and isinstance(scales[0], Sequence) else [scales]
    longest = transform.get('max_size')
    if longest is not None:  # scales are lengths of the shorter side
        shorter = max(max(s) if isinstance(s, Sequence) else s for s in scales)
        return _Turnable((shorter, longest))
    sizes = []
    # If the ratio is kept, the scale's longer side limits the longer side of the images.
    keeps = transform.get('keep_ratio', transform.get('resize_cfg', {}).get('keep_ratio', True))
    for scale in scales:
        width, height = (scale, scale) if isinstance(scale, int) else scale
        if width < 0 or height < 0:
            return None  # only one side is given, so the size depends on the images
        sizes.append((min(width, height), max(width, height)) if keeps else (height, width))
    found = _scaled(max(sizes, key=_area), max(transform.get('ratio_range') or (1,)))
    return _Turnable(found) if keeps and found[0] != found[1] else found


def _batch_augmented(augment: Mapping, size: Size | None) -> Size | None:
    kind = kind_of(augment)
    if kind == 'BatchFixedSizePad':
        return tuple(augment['size']) if size is None else tuple(map(max, augment['size'], size))
    if kind == 'BatchResize':
        return (min(augment['scale']), max(augment['scale']))
    if kind == 'BatchSyncRandomResize' and size is not None:
        height = max(augment['random_size_range'])
        return (height, round(height * size[1] / size[0]))
    return size


def _area(size: Size) -> int:
    return size[0] * size[1]


def _scaled(size: Size, factor: float) -> Size:
    return (ceil(size[0] * factor), ceil(size[1] * factor))


@dataclass(frozen=True)
class FixedBytes:
    """Bytes that do not depend on the images.

    Attributes:
        static: Parameters, buffers, optimizer state, averaged weights.
        stepping: Additional bytes during the optimizer step.
    """

    static: int
    stepping: int

    def before(self, batch: int, size: Size) -> int:
        """Return the bytes before a step on a batch of images with a padded height and width in pixels."""
        return self.static + batch * 3 * 4 * size[0] * size[1]


def fixed_bytes(config: Config, local: bool = True) -> FixedBytes:
    """Return the bytes of a config's model that do not depend on its images.

    Args:
        config: The config of a detector or segmentor.
        local: Whether to include a local backbone's auxiliary networks.

    Raises:
        ValueError: ``optim_wrapper`` sets no optimizer.
    """
    init_default_scope(config.get('default_scope', 'mmengine'))
    model = copy.deepcopy(config.model)
    if not local and local_class(config) is not None:
        model.backbone = without_networks(with_cuts(model.backbone, []))
    built = MODELS.build(model)
    copies = 1 + sum(_averages(hook, config) for hook in config.get('custom_hooks') or [])
    return FixedBytes(
        static_bytes(config, built.parameters(), built.buffers(), copies), stepping_bytes(built.parameters())
    )


def _averages(hook: Mapping, config: Config) -> bool:
    kind: Any = named_class(hook['type'], 'hook', config.get('default_scope'))
    return kind is not None and issubclass(kind, EMAHook)
