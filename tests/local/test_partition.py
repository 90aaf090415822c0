from itertools import pairwise

import pytest

from manpp_mm.local import partition

R50 = (3, 4, 6, 3)
ALL = [True] * 16
LAYER1_FROZEN = [False] * 3 + [True] * 13


@pytest.mark.parametrize(
    ('trainable', 'blocks', 'cuts'),
    [
        (ALL, 4, [(0, 2), (1, 3), (2, 5)]),
        (LAYER1_FROZEN, 3, [(1, 3), (2, 5)]),
        (ALL, 1, []),
        (ALL, 2, [(2, 0)]),  # 8 of 16 units
        (LAYER1_FROZEN, 2, [(2, 1)]),  # 6 of the 13 units that train
        (ALL, 16, [(s, u) for s, n in enumerate(R50) for u in range(n)][:-1]),
    ],
)
def test_local_blocks(trainable, blocks, cuts):
    assert partition(R50, trainable, local_blocks=blocks) == cuts


@pytest.mark.parametrize('blocks', range(1, 14))
def test_blocks_that_train_differ_by_one_unit_at_most(blocks):
    cuts = partition(R50, LAYER1_FROZEN, local_blocks=blocks)
    if blocks == 3:
        return  # stage ends
    units = [(s, u) for s, n in enumerate(R50) for u in range(n)]
    ends = [3, *(units.index(cut) + 1 for cut in cuts), 16]
    sizes = [b - a for a, b in pairwise(ends)]
    assert len(sizes) == blocks
    assert max(sizes) - min(sizes) <= 1


def test_explicit_cuts():
    assert partition(R50, ALL, cuts=[[0, 0], (3, 1)]) == [(0, 0), (3, 1)]
    assert partition(R50, LAYER1_FROZEN, cuts=[(1, 0)]) == [(1, 0)]
    assert partition(R50, ALL, cuts=[]) == []


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(cuts=[(4, 0)]), 'out of range'),
        (dict(cuts=[(-1, 0)]), 'out of range'),
        (dict(cuts=[(0, 3)]), 'out of range'),
        (dict(cuts=[3]), 'pair'),
        (dict(cuts=[(1, 1.5)]), 'pair'),
        (dict(cuts=[(2, 0), (1, 0)]), 'ascend'),
        (dict(cuts=[(1, 0), (1, 0)]), 'ascend'),
        (dict(cuts=[(3, 2)]), 'last unit'),
        (dict(cuts=[(0, 2)]), r'first unit that trains is \(1, 0\)'),
        (dict(local_blocks=14), 'local_blocks=14 exceeds the 13'),
        (dict(local_blocks=-1), 'positive integer'),
        (dict(local_blocks=True), 'positive integer'),
        (dict(), 'neither is'),
        (dict(local_blocks=2, cuts=[(1, 0)]), 'both are set'),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        partition(R50, LAYER1_FROZEN, **options)


def test_nothing_trains():
    with pytest.raises(ValueError, match='the whole backbone is frozen'):
        partition(R50, [False] * 16, local_blocks=2)
