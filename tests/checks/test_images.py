"""Image files."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from runners import coco_runner_config

from manpp_mm.checks import check_everything
from manpp_mm.checks.images import check_exist, check_sizes, read_header, sample


def save_turned(path, size=(48, 64)) -> None:
    """An image of (width, height) as stored that its EXIF orientation turns by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((*size[::-1], 3), np.uint8)).save(path, exif=exif)


def test_a_header_says_how_an_image_is_loaded(tmp_path):
    path = tmp_path / 'turned.jpg'
    save_turned(path)
    header = read_header(str(path))
    assert (header.stored, header.loaded) == ((48, 64), (64, 48))
    assert cv2.imread(str(path)).shape[1::-1] == header.loaded


def test_boxes_for_an_image_as_stored_are_refused(tmp_path):
    config = coco_runner_config(tmp_path)
    save_turned(tmp_path / 'train2017/turned.jpg')
    path = tmp_path / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    content['images'][1].update(file_name='turned.jpg', width=48, height=64)
    path.write_text(json.dumps(content))
    message = r'turned.jpg has an EXIF orientation: .*instances_train2017.json refers to its 48x64 .* loaded as 64x48'
    with pytest.raises(ValueError, match=message):
        check_everything(config, 'train')
    config.train_dataloader.dataset.pipeline[0].color_type = 'color_ignore_orientation'
    check_everything(config, 'train')
    del config.train_dataloader.dataset.pipeline[0]['color_type']
    content['images'][1].update(width=64, height=48)  # the boxes are for the image as it is loaded
    path.write_text(json.dumps(content))
    assert check_everything(config, 'train').warnings == []


def test_another_size_is_a_warning(tmp_path):
    config = coco_runner_config(tmp_path)
    path = tmp_path / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    for image in content['images'][2:]:
        image.update(width=60, height=50)
    path.write_text(json.dumps(content))
    (warning,) = check_everything(config, 'train').warnings
    assert '2 images have another size than it says, the first is' in warning
    assert '2.png: 64x64 pixels instead of 60x50' in warning


@pytest.mark.parametrize(('content', 'message'), [(b'', 'is empty'), (b'no image', 'is not an image that can be read')])
def test_files_that_are_no_images(tmp_path, content, message):
    path = tmp_path / 'a.jpg'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'a.jpg {message}'):
        read_header(str(path))


def test_of_many_images_a_sample_is_looked_at(tmp_path):
    assert sample([1, 2, 3]) == [1, 2, 3]
    found = sample(range(10001), 5)
    assert found == [0, 2500, 5000, 7500, 10000]
    message = '5 of 5 images checked out of 10001 do not exist'
    with pytest.MonkeyPatch.context() as patch, pytest.raises(FileNotFoundError, match=message):
        patch.setattr('manpp_mm.checks.images.MOST', 5)
        patch.setattr('manpp_mm.checks.images.sample', lambda row: sample(row, 5))
        check_exist([str(tmp_path / f'{index}.jpg') for index in range(10001)], 'key')


def test_nothing_is_said_of_right_sizes():
    assert check_sizes([], 'a.json') is None


@pytest.mark.parametrize('suffix', ['jpg', 'png'])
def test_a_download_that_was_cut_off(tmp_path, suffix):
    path = tmp_path / f'a.{suffix}'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8))
    read_header(str(path))
    content = path.read_bytes()
    path.write_bytes(content + b'\0' * 100)  # some cameras pad
    read_header(str(path))
    path.write_bytes(content[: len(content) // 2])
    if cv2.imread(str(path)) is None:
        with pytest.raises(ValueError, match=f'a.{suffix} is cut off: download it again'):
            read_header(str(path))
