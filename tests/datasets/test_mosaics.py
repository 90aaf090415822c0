"""Small images side by side in one picture a class."""

import cv2
import numpy as np
import pytest

pytest.importorskip('mmpretrain')
from mmpretrain.registry import DATASETS

import manpp_mm  # noqa: F401  it registers the data set


def mosaic(root, name: str, rows: int = 2, columns: int = 3, side: int = 4) -> np.ndarray:
    """Write a picture, RGB, whose tiles have the brightness of their number."""
    tiles = np.arange(rows * columns, dtype=np.uint8).reshape(rows, columns) * 10
    picture = tiles.repeat(side, 0).repeat(side, 1)[..., None] + np.array([3, 2, 1], np.uint8)
    cv2.imwrite(str(root / name), picture[..., ::-1])
    return picture


def built(root, **keys: object):
    return DATASETS.build(
        dict(type='MosaicDataset', data_root=str(root), split='train', tile=4, pipeline=[], _scope_='mmpretrain') | keys
    )


def test_images_row_by_row(tmp_path):
    mosaic(tmp_path, 'train_b.png')
    mosaic(tmp_path, 'train_a.png', rows=1)
    mosaic(tmp_path, 'val_c.png')
    found = built(tmp_path)
    assert list(found.metainfo['classes']) == ['a', 'b']
    assert found.get_gt_labels().tolist() == [0] * 3 + [1] * 6
    assert [found[index]['img'][0, 0].tolist() for index in (0, 3, 8)] == [[3, 2, 1], [3, 2, 1], [53, 52, 51]]  # RGB
    assert found[4]['img'].shape == (4, 4, 3)
    assert len(built(tmp_path, per_class=2)) == 4
    other = built(tmp_path, metainfo=dict(classes=('b',)))
    assert other.get_gt_labels().tolist() == [0] * 6


@pytest.mark.parametrize(
    ('keys', 'error', 'message'),
    [
        (dict(split='test'), FileNotFoundError, r'has no picture test_CLASS\.\* \(data_root of a MosaicDataset\)'),
        (dict(metainfo=dict(classes=('a', 'z'))), FileNotFoundError, r'has no picture train_z\.\*'),
        (dict(tile=5), ValueError, r'train_a.png is 12x8 pixels, which is not a multiple of tile=5'),
    ],
)
def test_pictures_that_are_none(tmp_path, keys, error, message):
    mosaic(tmp_path, 'train_a.png')
    with pytest.raises(error, match=message):
        built(tmp_path, **keys)


def test_a_picture_that_cannot_be_read(tmp_path):
    (tmp_path / 'train_a.png').write_bytes(b'no picture')
    with pytest.raises(ValueError, match='train_a.png is not an image that OpenCV can read'):
        built(tmp_path)
