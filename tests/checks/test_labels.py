"""Label maps."""

import cv2
import numpy as np
import pytest
from runners import segmentation_runner_config

from manpp_mm.checks import check_everything
from manpp_mm.checks.labels import trained_label


@pytest.fixture
def config(tmp_path):
    return segmentation_runner_config(tmp_path, validate=True)


def write(root, values) -> None:
    """Label maps that hold values, each in a column."""
    columns = np.resize(np.array(values, np.uint8), 64)
    for path in (root / 'labels').iterdir():
        cv2.imwrite(str(path), np.tile(columns, (64, 1)))


def two_classes(config) -> None:
    for split in ('train', 'val'):
        config[f'{split}_dataloader'].dataset.metainfo = dict(classes=('back', 'front'), palette=[[0] * 3, [9] * 3])
    config.model.decode_head.num_classes = config.model.backbone.auxiliary.head.num_classes = 2


def test_what_is_right_passes_without_a_word(tmp_path, config):
    write(tmp_path, [0, 1, 2, 3, 255])
    report = check_everything(config, 'train', 'val')
    assert report.warnings == []
    counts = report.summary['train_dataloader.dataset']
    assert (counts.pairs, counts.read) == (4, 4)
    assert counts.trained.total() == 4 * 64 * 64
    assert [row[:2] for row in counts.rows()] == [
        ('0', 'a'),
        ('1', 'b'),
        ('2', 'c'),
        ('3', 'd'),
        ('255', 'not counted'),
    ]


def test_two_classes_as_0_and_255(tmp_path, config):
    two_classes(config)
    write(tmp_path, [0, 255])
    message = r'hold only 0 and 255, and 255 is ignored .*class 1 \(front\) never occurs. Store classes as 0 and 1'
    with pytest.raises(ValueError, match=message):
        check_everything(config, 'train')
    assert 'front' in check_everything(config, 'val').warnings[0]  # a validation may lack it
    write(tmp_path, [0, 1])
    assert check_everything(config, 'train', 'val').warnings == []


def test_reduce_zero_label_by_mistake(tmp_path, config):
    write(tmp_path, [0, 1, 2, 3])
    config.train_dataloader.dataset.reduce_zero_label = True
    (warning,) = check_everything(config, 'train').warnings
    assert 'reduce_zero_label=True moves every label: 0 -> not counted, 1 -> 0 (a), 2 -> 1 (b), 3 -> 2 (c)' in warning
    assert 'class 3 (d) never occurs' in warning
    write(tmp_path, [0, 1, 2, 3, 4])
    assert check_everything(config, 'train').warnings == []
    assert [trained_label(value, True) for value in (0, 1, 254, 255)] == [255, 0, 253, 255]


def test_labels_that_are_no_class(tmp_path, config):
    write(tmp_path, [0, 1, 2, 4, 7])
    with pytest.raises(ValueError, match=r'hold 4, 7, but there are 4 classes .*4 is in .*labels/0.png'):
        check_everything(config, 'train')
    write(tmp_path, [255])
    with pytest.raises(ValueError, match='every pixel of the label maps is 255'):
        check_everything(config, 'train')


def test_classes_that_never_occur(tmp_path, config):
    write(tmp_path, [0, 2])
    assert 'train_dataloader.dataset: 2 of 4 classes never occur: b, d' in check_everything(config, 'train').warnings


@pytest.mark.parametrize('split', ['train', 'val'])
def test_colours_and_sizes(tmp_path, config, split):
    path = tmp_path / 'labels/2.png'
    cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match='2.png is a picture with 3 color channels'):
        check_everything(config, split)
    cv2.imwrite(str(path), np.zeros((60, 64), np.uint8))
    with pytest.raises(ValueError, match=r'2.png is 60x64 pixels .*its image .*2.jpg is 64x64'):
        check_everything(config, split)
    path.write_bytes(b'')
    with pytest.raises(ValueError, match='2.png is empty'):
        check_everything(config, split)
    path.unlink()
    with pytest.raises(FileNotFoundError, match='1 of 4 images have no label map, the first is .*2.jpg'):
        check_everything(config, split)


def test_sixteen_bits_and_palettes(tmp_path, config):
    from PIL import Image

    labels = np.tile(np.arange(64) % 4, (64, 1))
    cv2.imwrite(str(tmp_path / 'labels/0.png'), labels.astype(np.uint16))
    picture = Image.fromarray(labels.astype(np.uint8), 'P')
    picture.putpalette(list(range(12)))
    picture.save(tmp_path / 'labels/1.png')
    assert check_everything(config, 'train').warnings == []
    cv2.imwrite(str(tmp_path / 'labels/0.png'), labels.astype(np.uint16) + 1000)
    with pytest.raises(ValueError, match='0.png holds the value 1003, but MMSegmentation reads labels as 8 bits'):
        check_everything(config, 'train')


def test_lossy_label_maps(tmp_path, config):
    config.train_dataloader.dataset.seg_map_suffix = '.jpg'
    for path in (tmp_path / 'labels').iterdir():
        cv2.imwrite(str(path.with_suffix('.jpg')), cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    with pytest.raises(ValueError, match='0.jpg is a JPEG, whose compression changes labels'):
        check_everything(config, 'train')


def test_labels_that_a_transform_of_its_own_reads_are_left_alone(tmp_path, config):
    cv2.imwrite(str(tmp_path / 'labels/0.png'), np.full((64, 64), 9, np.uint8))
    config.train_dataloader.dataset.pipeline[1].type = 'LoadBiomedicalAnnotation'
    assert check_everything(config, 'train').warnings == []


def test_images_and_labels_in_one_folder(tmp_path, config):
    for path in (tmp_path / 'labels').iterdir():
        path.rename(tmp_path / 'images' / path.name)
    config.train_dataloader.dataset.data_prefix = dict(img_path='images', seg_map_path='images')
    assert check_everything(config, 'train').warnings == []


def test_images_of_another_suffix_are_counted(tmp_path, config):
    for index in range(4, 7):
        cv2.imwrite(str(tmp_path / f'images/{index}.png'), np.zeros((64, 64, 3), np.uint8))
    (tmp_path / 'images/3.jpg').rename(tmp_path / 'images/3.JPG')
    (warning,) = check_everything(config, 'train').warnings
    assert "3 of 7 images are used, those that end in '.jpg' (train_dataloader.dataset.img_suffix)" in warning
    assert 'not used: 3 *.png, 1 *.JPG' in warning
