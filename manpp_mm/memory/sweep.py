"""Variants of a config with other depths, numbers of blocks and batch sizes."""

import copy
import itertools
from collections.abc import Iterator, Sequence

from mmengine.config import Config

from ..registered import named_class
from .fit import fit


def variants(
    config: Config,
    batch: int,
    size: tuple[int, int],
    depths: Sequence[int] | None = None,
    blocks: 'Sequence[int | str] | None' = None,
    batches: Sequence[int] | None = None,
) -> Iterator[tuple[str, Config, int]]:
    """Vary a config's depth, number of local blocks and batch size, in all combinations.

    Args:
        config: The config of a block-local detector or segmentor.
        batch: The batch size if ``batches`` is None.
        size: Height and width of an image in pixels, for which ``'auto'`` plans.
        depths: Depths of the backbone. Without ``blocks``, the number of local blocks does not change.
        blocks: Values of ``local_blocks``; ``'auto'`` plans for about the lowest need.
        batches: Images per step.

    Yields:
        A description of the variant, its config and its batch size.

    Raises:
        ValueError: The backbone has no depth, or the units of a depth have other widths, which neck and heads do not
            fit.
    """
    all_depths: Sequence[int | None] = depths or [None]
    all_blocks: Sequence[int | str | None] = blocks or [None]
    for depth, number, images in itertools.product(all_depths, all_blocks, batches or [batch]):
        varied = copy.deepcopy(config)  # Config.copy is shallow
        backbone = varied.model.backbone
        words = []
        if depth is not None:
            _check_width(backbone, depth)
            backbone.depth = depth
            words.append(f'R{depth}')
        if number is not None or (depth is not None and backbone.get('cuts') is not None):
            backbone.local_blocks = len(backbone.cuts) + 1 if number is None else number
            backbone.cuts = None
        if number is not None:
            words.append(f'{number} blocks')
        if backbone.get('local_blocks') == 'auto':
            varied = fit(varied, inputs=(images, *size))
        if batches is not None:
            words.append(f'batch {images}')
        yield ', '.join(words), varied, images


def _check_width(backbone: dict, depth: int) -> None:
    architectures = getattr(named_class(backbone['type'], 'model'), 'arch_settings', None)
    if architectures is None:
        raise ValueError(
            f'--depths {depth}: model.backbone.type={backbone["type"]!r} has no depth; only ResNets have one'
        )
    known = [number for number, (unit, _) in architectures.items() if unit is architectures[backbone['depth']][0]]
    if depth not in known:
        raise ValueError(
            f'--depths {depth}: neck and heads of this config fit only the widths of depths '
            f'{", ".join(map(str, known))}'
        )
