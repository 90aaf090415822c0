"""The division of a backbone into local blocks."""

from collections.abc import Sequence
from itertools import pairwise

Cut = tuple[int, int]
"""``(stage, unit)``, both counted from 0: the boundary after that unit."""


def partition(
    units_per_stage: Sequence[int],
    trainable: Sequence[bool],
    local_blocks: int | None = None,
    cuts: Sequence[Sequence[int]] | None = None,
    before: Sequence[Cut] = (),
) -> list[Cut]:
    """Choose the cuts that divide a backbone into local blocks.

    Args:
        units_per_stage: Number of units in each stage, ``(3, 4, 6, 3)`` for ResNet-50.
        trainable: For each unit in order, whether any part of it trains; for the first unit, including the stem.
        local_blocks: K, the number of local blocks that train. Cuts are placed at stage ends if that gives K blocks;
            otherwise the trainable units are divided evenly. A leading frozen part joins the first block.
        cuts: Explicit cuts ``[(stage, unit), ...]`` in ascending order.
        before: Units before the first stage, such as a stem as a block of its own; ``trainable`` starts with them.

    Returns:
        The K - 1 cuts in ascending order.

    Raises:
        ValueError: Neither or both of ``local_blocks`` and ``cuts`` are given; K exceeds the number of units that
            train; a cut is out of range, not in ascending order, repeated, after the last unit or in the frozen part.
    """
    if (local_blocks is None) == (cuts is None):
        given = 'both are set' if cuts is not None else 'neither is'
        raise ValueError(
            f'set exactly one of local_blocks and cuts ({given}): local_blocks=3 for three blocks, or '
            'cuts=[(1, 3), (2, 5)] for cuts after unit 3 of stage 1 and unit 5 of stage 2. If your config inherits the '
            'other one, set that to None.'
        )
    units = [*before, *((stage, unit) for stage, count in enumerate(units_per_stage) for unit in range(count))]
    if True not in trainable:
        raise ValueError('the whole backbone is frozen (frozen_stages): there is no block to train locally')
    first = list(trainable).index(True)
    if cuts is None:
        return _even_cuts(units, first, local_blocks)
    return _checked_cuts(units_per_stage, units, first, cuts)


def _even_cuts(units: list[Cut], first: int, local_blocks: int | None) -> list[Cut]:
    trained = units[first:]
    if not isinstance(local_blocks, int) or isinstance(local_blocks, bool) or local_blocks < 1:
        raise ValueError(f'local_blocks must be a positive integer, got {local_blocks!r}')
    if local_blocks > len(trained):
        raise ValueError(
            f'local_blocks={local_blocks} exceeds the {len(trained)} units that train; set it to at most '
            f'{len(trained)}, or freeze fewer stages (frozen_stages)'
        )
    stage_ends = [a for a, b in pairwise(trained) if a[0] != b[0]]
    if len(stage_ends) + 1 == local_blocks:
        return stage_ends
    return [trained[round(j * len(trained) / local_blocks) - 1] for j in range(1, local_blocks)]


def _checked_cuts(
    units_per_stage: Sequence[int], units: list[Cut], first: int, cuts: Sequence[Sequence[int]]
) -> list[Cut]:
    checked: list[Cut] = []
    for cut in cuts:
        if (
            not isinstance(cut, Sequence)
            or len(cut) != 2
            or not all(isinstance(i, int) and not isinstance(i, bool) for i in cut)
        ):
            raise ValueError(f'cuts={list(cuts)}: each cut is a pair (stage, unit) of integers, got {cut!r}')
        stage, unit = cut
        if (stage, unit) not in units:
            raise ValueError(
                f'cuts={list(cuts)}: {(stage, unit)} is out of range; the stages have {tuple(units_per_stage)} units, '
                'both numbers count from 0'
            )
        if (stage, unit) == units[-1]:
            raise ValueError(
                f'cuts={list(cuts)}: {(stage, unit)} is the last unit, so no block would follow it; remove this cut, '
                'the last block ends there anyway'
            )
        if units.index((stage, unit)) < first:
            raise ValueError(
                f'cuts={list(cuts)}: all units up to {(stage, unit)} are frozen (frozen_stages); the first unit that '
                f'trains is {units[first]}, cut there or later'
            )
        if checked and (stage, unit) <= checked[-1]:
            raise ValueError(f'cuts={list(cuts)}: cuts must be in ascending order without repetition')
        checked.append((stage, unit))
    return checked
