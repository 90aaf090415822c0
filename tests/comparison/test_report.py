"""Tables by hand."""

import pytest

from manpp_mm.comparison import curves_plot, results_table


def result(variant, seed, value, peak=100e6, seconds=50.0):
    curve = [
        dict(iteration=i, seconds=s, metrics={'coco/bbox_mAP': v}) for i, s, v in ((5, 20.0, 0.1), (10, seconds, value))
    ]
    return dict(
        variant=variant, seed=seed, metric='coco/bbox_mAP', curve=curve, iterations=10, seconds=seconds,
        peak_bytes=peak, peak_is='by hand',
    )  # fmt: skip


RESULTS = [
    *(result('end_to_end', seed, value, 200e6, 100.0) for seed, value in enumerate((0.50, 0.52, 0.54))),
    *(result('frozen', seed, value) for seed, value in enumerate((0.40, 0.42, 0.44))),
    *(result('manpp', seed, value) for seed, value in enumerate((0.49, 0.52, 0.52))),
    result('dgl', 1, 0.45),
]


def test_means_differences_and_shares():
    rows = {line.split(' | ')[0][2:]: line.split(' | ')[1:] for line in results_table(RESULTS).splitlines()[2:]}
    assert rows['end_to_end'] == ['3', '52.00 ± 2.00', '', '+10.00 [+10.00, +10.00]', '', '200', '10.000 |']
    # differences -1, 0, -2: mean -1, standard deviation 1, t(0.975, 2) = 4.303, half width 4.303 / sqrt(3)
    assert rows['manpp'][1:4] == ['51.00 ± 1.73', '-1.00 [-3.48, +1.48]', '+9.00 [+6.52, +11.48]']
    assert rows['manpp'][4:] == ['90%', '100', '5.000 |']
    assert rows['dgl'][:5] == ['1', '45.00', '-7.00', '+3.00', '30%']


def test_a_frozen_front_has_a_column_of_differences():
    head, rule, *rows = results_table([*RESULTS, result('front_frozen', 1, 0.50)]).splitlines()
    assert ' | to frozen | to front frozen | gap closed | ' in head
    assert rule.count('|') == head.count('|') == rows[0].count('|')
    rows = {row.split(' | ')[0][2:]: row.split(' | ')[3:7] for row in rows}
    assert rows['manpp'] == ['-1.00 [-3.48, +1.48]', '+9.00 [+6.52, +11.48]', '+2.00', '90%']
    assert rows['front_frozen'] == ['-2.00', '+8.00', '', '80%']


def test_references_that_are_missing():
    (row,) = results_table([result('manpp', 0, 0.5)]).splitlines()[2:]
    assert row.split(' | ')[2:6] == ['50.00', '', '', '']


def test_mious_are_points_already():
    own = result('manpp', 0, 35.5)
    own['metric'] = 'mIoU'
    own['curve'][-1]['metrics'] = dict(mIoU=35.5)
    assert '| 35.50 |' in results_table([own])


def test_curves(tmp_path):
    curves_plot(RESULTS, tmp_path / 'curves.png')
    assert (tmp_path / 'curves.png').read_bytes().startswith(b'\x89PNG')
    assert (tmp_path / 'curves.png').stat().st_size == pytest.approx(80_000, rel=0.7)
