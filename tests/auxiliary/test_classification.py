"""Auxiliary networks that end in a head of MMPretrain."""

import pytest
from helpers import build, classifier_config

pytest.importorskip('mmpretrain')

STACKED = dict(type='StackedLinearClsHead', num_classes=4, mid_channels=[16])


@pytest.mark.parametrize(
    ('auxiliary', 'message'),
    [
        (
            dict(head=dict(type='StackedLinearClsHead', num_classes=4)),
            'auxiliary.head: StackedLinearClsHead .*mid_chan',
        ),
        (dict(head=dict(type='ClsHead')), "auxiliary.head: ClsHead cannot be built from .'in_channels'.: "),
        (dict(head=dict(type='LinearClsHead')), 'auxiliary.head needs num_classes'),
        (dict(head=STACKED, class_token=True), 'the backbone has no class token'),
        (dict(head=STACKED, neck=dict(type='LinearReduction')), "neck.type='LinearReduction' is not|takes in_channels"),
        (dict(head=STACKED, neck='GlobalAveragePooling'), r"auxiliary.neck='Glob.*' must be a dict\(type=...\)"),
    ],
)
def test_bad_options(auxiliary, message):
    with pytest.raises(ValueError, match=message):
        build(classifier_config(auxiliary=auxiliary))


@pytest.mark.parametrize(
    ('cuts', 'message'),
    [
        ([(-1, 0), (0, 9)], r'cuts=\[\(-1, 0\), \(0, 9\)\]: \(0, 9\) is out of range'),
        ([(-1, 0), (1, 0), (0, 1)], r'cuts=\[\(-1, 0\), \(1, 0\), \(0, 1\)\]: cuts must be in ascending order'),
        ([(0, 1), (-1, 0)], r'cuts=\[\(0, 1\), \(-1, 0\)\]: \(-1, 0\) is out of range'),
        ([(-1, 0), (-1, 0)], 'cuts must be in ascending order without repetition'),
    ],
)
def test_a_bad_cut_beside_the_stems_quotes_all(cuts, message):
    with pytest.raises(ValueError, match=message):
        build(classifier_config(cuts=cuts))
