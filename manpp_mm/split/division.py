"""Which process trains which local blocks."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

from mmengine.config import Config

from ..backbones import find_local_backbone
from ..local import BlockOutput
from ..memory.counts import StepCounts
from ..memory.footprint import small_probe
from ..memory.inputs import training_input
from ..memory.training_step import TrainingStep
from ..mode import LOCAL
from ..step import Step
from .share import last_blocks


def parse_split(text: str) -> list[int]:
    """Return the number of blocks of each process from ``'3,5'``.

    Raises:
        ValueError: It is not a list of positive numbers.
    """
    parts = text.split(',')
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f'{text!r}: write the number of local blocks of each process, such as 3,5')
    return [int(part) for part in parts]


def divided(numbers: Sequence[int]) -> list[range]:
    """Return the blocks of each process from their numbers of blocks."""
    return [range(a, b) for a, b in pairwise([0, *accumulate(numbers)])]


def balanced(work: Sequence[float], processes: int) -> list[range]:
    """Divide blocks into consecutive parts so that the largest work of a part is as small as possible.

    Args:
        work: The work of each block; that of neck and heads belongs to the last one.
        processes: The number of parts, at most the number of blocks.
    """
    number = len(work)
    # best[k][i]: the largest work of a part, and the start of the last one, if k parts hold the first i blocks.
    best = [{0: (0.0, 0)}]
    for parts in range(1, processes + 1):
        row = {}
        for end in range(parts, number + 1):
            starts = [start for start in best[-1] if start < end]
            row[end] = min((max(best[-1][start][0], sum(work[start:end])), start) for start in starts)
        best.append(row)
    ends = [number]
    for row in reversed(best[1:]):
        ends.append(row[ends[-1]][1])
    return [range(a, b) for a, b in pairwise(reversed(ends))]


def block_work(config: Config) -> tuple[list[float], frozenset[int]]:
    """Return the floating-point operations of each local block in a step, and the stages whose maps are used.

    A block's work includes its auxiliary network's, the last one's that of neck and heads. It is counted on two small
    images and extrapolated to the training's, linearly in the number of pixels; if the pipeline does not set their
    size, it is that of the small images. A map is used if the task's loss has a gradient for it.

    Args:
        config: The config of a block-local model.
    """
    small, (height, width) = small_probe(config)
    probes = [(small, (height, width)), (small, (2 * height, width))]
    try:
        batch, size = training_input(config)
    except ValueError:
        batch, size = probes[0]
    (counts, used), (more, _) = (_work(config, *probe) for probe in probes)
    areas = [number * h * w for number, (h, w) in probes]
    area = batch * size[0] * size[1]
    slopes = [(b - a) / (areas[1] - areas[0]) for a, b in zip(counts, more, strict=True)]
    return [a + slope * (area - areas[0]) for a, slope in zip(counts, slopes, strict=True)], used


def _work(config: Config, batch: int, size: tuple[int, int]) -> tuple[list[float], frozenset[int]]:
    step = TrainingStep(config, LOCAL, batch, size, full_regions=True)
    model, data = step.model, step.data
    backbone = find_local_backbone(model)
    images, found = data['inputs'], []
    output = BlockOutput(images, {})
    last = len(backbone.blocks()) - 1
    for number in range(last):
        one = Step(data['data_samples'])
        with StepCounts() as counts:
            output = backbone.train_blocks([number], output, images, one)
        found.append(float(counts.flops))
    maps = {stage: found.clone().requires_grad_() for stage, found in output.features.items()}
    given = BlockOutput(output.x, maps)
    with StepCounts() as counts, last_blocks(backbone, range(last, last + 1), given):
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        loss.backward()
    return [*found, float(counts.flops)], frozenset(stage for stage, found in maps.items() if found.grad is not None)
