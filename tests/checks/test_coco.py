"""COCO files: what is refused, what is said, and what goes on working."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS
from runners import coco_runner_config, write_coco

from manpp_mm.checks import check_everything
from manpp_mm.checks.coco import count_boxes, read_coco

TRAIN = 'annotations/instances_train2017.json'


@pytest.fixture
def config(tmp_path):
    return coco_runner_config(tmp_path, validate=True)


def edit(root: Path, change, path: str = TRAIN) -> None:
    """Change a COCO file in place."""
    file = root / path
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def boxes(change):
    """Apply a change to each annotation."""
    return lambda content: [change(each) for each in content['annotations']]


def test_what_is_right_passes_without_a_word(config):
    report = check_everything(config, 'train', 'val')
    assert report.warnings == []
    counts = report.summary['train_dataloader.dataset']
    assert (counts.used_images, counts.images, counts.used, counts.boxes) == (4, 4, 4, 4)
    assert counts.by_class == dict(a=2, b=1, c=1)
    assert report.sizes['train_dataloader.dataset'] == 'all 4 images read have 64x64 pixels'


def reorder(content):
    content['categories'].reverse()


def drop_key(name: str, key: str):
    return lambda content: content[name][0].pop(key)


def set_box(**values):
    return boxes(lambda each: each.update(values))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (reorder, r"classes is \('a', 'b', 'c'\), but .*have the order \('c', 'b', 'a'\)"),
        (lambda content: content['categories'].pop(), "has no category 'c' .*it has 'a', 'b'"),
        (lambda content: content['categories'].append(dict(id=9, name='a')), "several categories are named 'a'"),
        (lambda content: content['annotations'].clear(), 'holds no annotations'),
        (
            boxes(lambda each: each.update(image_id=str(each['image_id']))),
            "image_id is '0', but the ids of images are like",
        ),
        (lambda content: content['images'][1].update(id=0), '2 images have the id 0'),
        (set_box(id=5), '4 annotations have the id 5'),
        (set_box(area=None), r'area of annotations\[0\] is None, not a number'),
        (boxes(lambda each: each.pop('area')), "4 of 4 annotations lack 'area', .*write w . h of its bbox"),
        (drop_key('images', 'height'), r"1 of 4 images lack 'height', the first is images\[0\]"),
        (drop_key('annotations', 'bbox'), "1 of 4 annotations lack 'bbox'"),
        (set_box(bbox=[1, 2, 3]), r'bbox of annotations\[0\] is \[1, 2, 3\], not'),
        (set_box(bbox=[1, 2, float('nan'), 3]), 'bbox of annotations'),
        (set_box(bbox=[0.1, 0.1, 0.5, 0.5]), '0 of 4 boxes are used: 4 smaller than a pixel. Are they divided by the'),
        (set_box(bbox=[70, 70, 8, 8]), '0 of 4 boxes are used: 4 outside their image'),
        (set_box(category_id=77), '0 of 4 boxes are used: 4 without a category'),
        (lambda content: content.pop('categories'), "is not a COCO file: it needs 'categories'"),
        (
            lambda content: content['images'][0].update(width=0),
            r'width and height of images\[0\] \(0.png\) must be pos',
        ),
        (lambda content: content['images'][0].update(file_name='gone.png'), '1 of 4 images do not exist'),
    ],
)
def test_wrong_files_are_named(tmp_path, config, change, message):
    edit(tmp_path, change)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        check_everything(config, 'train')
    assert str(tmp_path) in str(caught.value)


def test_the_validation_split_is_looked_at_too(tmp_path, config):
    edit(tmp_path, lambda content: [each.pop('iscrowd') for each in content['annotations']])
    check_everything(config, 'train')  # only pycocotools' evaluation needs it
    edit(
        tmp_path,
        lambda content: [each.pop('iscrowd') for each in content['annotations']],
        'annotations/instances_val2017.json',
    )
    with pytest.raises(ValueError, match="instances_val2017.json: 4 of 4 annotations lack 'iscrowd'.*: write 0"):
        check_everything(config, 'val')


def test_lost_boxes_are_counted_as_mmdetection_does(tmp_path, config):
    def change(content):
        first, second, third, _ = content['annotations']
        first['bbox'] = [70, 70, 8, 8]
        second['category_id'] = 77
        third['ignore'] = True

    edit(tmp_path, change)
    report = check_everything(config, 'train')
    assert report.warnings[0].endswith(
        '(train_dataloader.dataset): 1 of 4 images, 1 of 4 boxes are used: 1 without a category, 1 outside their '
        "image, 1 marked 'ignore'"
    )
    dataset = DATASETS.build(dict(config.train_dataloader.dataset, pipeline=[]))
    assert sum(len(dataset.get_data_info(index)['instances']) for index in range(len(dataset))) == 1


def test_corners_in_place_of_sizes_are_suspected(tmp_path, config):
    edit(tmp_path, set_box(bbox=[30, 30, 50, 50]))
    (warning,) = check_everything(config, 'train').warnings
    assert '4 of 4 boxes exceed their image. Are they [x1, y1, x2, y2]?' in warning


def test_classes_left_out_on_purpose_are_no_warning(tmp_path, config):
    config.train_dataloader.dataset.metainfo = dict(classes=('a', 'c'))
    config.model.roi_head.bbox_head.num_classes = config.model.backbone.auxiliary.head.num_classes = 2
    report = check_everything(config, 'train')
    assert report.warnings == []
    assert report.summary['train_dataloader.dataset'].dropped['of categories not in metainfo.classes'] == 1


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'\xef\xbb\xbf{}', 'begins with a byte order mark'),
        (b'{"images": [', 'is not valid JSON, its end is missing'),
        (b'{"images": ]}', 'is not valid JSON: Expecting value'),
        (b'{"name": "\xe4"}', 'is not encoded in UTF-8'),
        (b'[]', 'holds a list, not the dict of a COCO file'),
        (b'', 'is not valid JSON'),
    ],
)
def test_files_that_are_no_coco_files(tmp_path, content, message):
    path = tmp_path / 'a.json'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'a.json {message}'):
        read_coco(str(path))


@pytest.mark.parametrize(
    ('mask', 'message'),
    [
        ([], 'has no segmentation'),
        (None, 'has no segmentation'),
        ([[1, 1, 5, 5]], 'a polygon needs three points or more, .* but this one has 4 numbers'),
        ([[1, 1, 5, 5, 1]], 'has 5 numbers'),
        ([1, 1, 9, 1, 9, 9], 'segmentation must be a list of polygons'),
        (dict(counts=[1]), "lacks 'size' or 'counts'"),
    ],
)
def test_masks_where_they_are_loaded(tmp_path, config, mask, message):
    path = 'annotations/instances_val2017.json'
    edit(tmp_path, set_box(segmentation=[[1, 1, 9, 1, 9, 9]]), path)
    loads = next(each for each in config.val_dataloader.dataset.pipeline if each.type == 'LoadAnnotations')
    loads.with_mask = True
    check_everything(config, 'val')
    edit(tmp_path, lambda content: content['annotations'][2].update(segmentation=mask), path)
    with pytest.raises(ValueError, match=rf'annotations\[2\] \(id 3\).* {message}'):
        check_everything(config, 'val')
    edit(tmp_path, lambda content: content['annotations'][2].update(ignore=True), path)
    assert '3 of 4 boxes are used' in check_everything(config, 'val').warnings[0]  # what is not used needs no mask
    loads.with_mask = False
    check_everything(config, 'val')


def test_training_leaves_short_polygons_out(tmp_path, config):
    edit(tmp_path, set_box(segmentation=[[1, 1, 9, 1, 9, 9], [1, 1, 5, 5]]))
    config.train_dataloader.dataset.pipeline[1].with_mask = True
    (warning,) = check_everything(config, 'train').warnings
    assert 'but this one has 4 numbers; 4 such polygons are skipped' in warning


def test_images_that_are_not_read_need_not_be_there(tmp_path, config):
    edit(tmp_path, lambda content: content['annotations'].pop())
    (tmp_path / 'train2017/3.png').unlink()
    with pytest.raises(FileNotFoundError, match='1 of 4 images do not exist'):
        check_everything(config, 'train')
    config.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True, min_size=32)
    check_everything(config, 'train')
    config.train_dataloader.dataset.filter_cfg.min_size = 100
    with pytest.raises(ValueError, match='filter_cfg=.*min_size.*keeps none of 4 images'):
        check_everything(config, 'train')
    config.train_dataloader.dataset.update(backend_args=dict(backend='petrel'), data_root='elsewhere')
    check_everything(config, 'train')


def test_several_data_sets_have_keys_of_their_own(tmp_path, config):
    (tmp_path / 'other').mkdir()
    write_coco(tmp_path / 'other', empty=(0, 1, 2, 3))
    first = config.train_dataloader.dataset
    config.train_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[first, dict(first, data_root=str(tmp_path / 'other'))]
    )
    report = check_everything(config, 'train')
    key = 'train_dataloader.dataset.datasets'
    assert [(name, counts.used) for name, counts in report.summary.items()] == [(f'{key}.0', 4), (f'{key}.1', 0)]
    config.train_dataloader.dataset.datasets[1].metainfo = dict(classes=('b', 'a', 'c'))
    with pytest.raises(ValueError, match=rf'{key}.1.metainfo.classes is'):
        check_everything(config, 'train')
    config.train_dataloader.dataset.datasets.pop(0)
    config.train_dataloader.dataset.datasets[0].metainfo = dict(classes=('a', 'b', 'c'))
    with pytest.raises(ValueError, match=rf'{key}.0. holds no annotations'):
        check_everything(config, 'train')


def test_somebody_has_to_name_the_classes(config):
    from mmdet.datasets import CocoDataset

    class Nameless(CocoDataset):
        METAINFO = {}

    config.train_dataloader.dataset.pop('metainfo')
    config.train_dataloader.dataset.type = Nameless
    with pytest.raises(ValueError, match='train_dataloader.dataset: neither the config nor Nameless.METAINFO names'):
        check_everything(config, 'train')


def test_right_data_are_not_refused(tmp_path, config):
    """String ids, gaps, grey, 16-bit and CMYK images, WEBP, run-length encodings, umlauts, images without boxes."""
    from PIL import Image

    folder = tmp_path / 'train2017' / 'Ordner mit Ümlaut'
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / 'grey.png')
    Image.fromarray(pixels).convert('CMYK').save(folder / 'c m y k.jpg')
    Image.fromarray(pixels).convert('RGB').save(folder / 'web.webp')
    cv2.imwrite(str(folder / 'deep.png'), pixels.astype(np.uint16) * 256)
    names = ['grey.png', 'c m y k.jpg', 'web.webp', 'deep.png']

    def change(content):
        for index, (image, name) in enumerate(zip(content['images'], names, strict=True)):
            image.update(id=f'image {index * 7}', file_name=f'Ordner mit Ümlaut/{name}')
        for index, each in enumerate(content['annotations']):
            each.update(image_id=f'image {index * 7}', id=index * 11 + 1)
            each['segmentation'] = dict(size=[64, 64], counts=[0, 64 * 64])
        content['annotations'].pop()

    edit(tmp_path, change)
    report = check_everything(config, 'train')
    assert report.warnings == []
    assert report.summary['train_dataloader.dataset'].used_images == 3


def test_counts_of_a_hand_made_file():
    found = dict(
        images=[dict(id=1, width=10, height=8), dict(id=2, width=10, height=8)],
        categories=[dict(id=4, name='a'), dict(id=2, name='b')],
        annotations=[
            dict(image_id=1, category_id=4, bbox=[0, 0, 4, 4], area=16),
            dict(image_id=1, category_id=2, bbox=[9.5, 0, 4, 4], area=16),
            dict(image_id=1, category_id=2, bbox=[10, 0, 4, 4], area=16),
            dict(image_id=1, category_id=2, bbox=[1, 0, 4, 4], area=0),
            dict(image_id=3, category_id=2, bbox=[1, 0, 4, 4], area=16),
        ],
    )
    counts = count_boxes(found, ('a', 'b'))
    assert (counts.used, counts.by_class, counts.used_images) == (2, dict(a=1, b=1), 1)
    assert str(counts) == (
        '1 of 2 images, 2 of 5 boxes are used: 1 without an image, 1 outside their image, 1 with an area of 0'
    )
