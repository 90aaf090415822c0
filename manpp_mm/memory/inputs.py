"""What a config's step starts with: its input and what is in memory before it."""

import copy
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from ..backbones.config import with_cuts, without_networks
from ..datasets.check_files import innermost
from .footprint import padded, static_bytes


def training_input(config: Config) -> tuple[int, tuple[int, int]]:
    """Images a step and their height and width, from the config's training loader.

    Raises:
        ValueError: Its pipeline does not tell.
    """
    loader = config.train_dataloader
    dataset = innermost(loader.dataset)
    sizes = []
    for transform in dataset.get('pipeline', []):
        if transform.type == 'RandomCrop':
            crop = transform.crop_size
            sizes = [(crop, crop) if isinstance(crop, int) else tuple(crop)]
        elif transform.type in ('Resize', 'RandomChoiceResize', 'RandomResize'):
            scales = transform.get('scales') or transform.get('scale')
            if not isinstance(scales, Sequence):
                continue  # a factor, or one side alone: the images decide
            scales = scales if isinstance(scales[0], Sequence) else [scales]
            sizes = [max(((min(s), max(s)) for s in scales), key=lambda s: s[0] * s[1])]
    padded_to = config.model.get('data_preprocessor', {}).get('size')
    if padded_to:
        sizes = [tuple(padded_to)]
    if not sizes:
        raise ValueError(
            'the training pipeline names no image size (Resize or RandomCrop): give it, --input N H W of '
            'tools/plan_cuts.py'
        )
    return loader.batch_size, sizes[0]


def bytes_before_step(config: Config, batch: int, size: tuple[int, int], local: bool) -> int:
    """Bytes of parameters, buffers, optimizer state and a batch of images; ``local``: see :func:`model_bytes`."""
    return model_bytes(config, local) + batch * input_bytes(padded(config, size))


def model_bytes(config: Config, local: bool) -> int:
    """Bytes of a model's parameters, buffers and optimizer state; without auxiliary networks unless ``local``."""
    init_default_scope(config.get('default_scope', 'mmengine'))
    model = copy.deepcopy(config.model)
    if not local:
        model.backbone = without_networks(with_cuts(model.backbone, []))
    built = MODELS.build(model)
    return static_bytes(config, built.parameters(), built.buffers())


def input_bytes(size: tuple[int, int]) -> int:
    return 3 * 4 * size[0] * size[1]
