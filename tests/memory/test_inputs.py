"""The images that a config trains on, read from its pipeline."""

import pytest
from helpers import classifier_config, detector_config, segmentor_config, upstream
from mmengine.config import Config

from manpp_mm.memory.inputs import training_input


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', (2, (800, 1333))),
        ('mmdet::retinanet/retinanet_r50_fpn_ms-640-800-3x_coco.py', (2, (800, 1333))),
        ('mmdet::detr/detr_r50_8xb2-150e_coco.py', (2, (800, 1333))),
        ('mmdet::yolox/yolox_s_8xb8-300e_coco.py', (8, (800, 800))),  # Mosaic, then resized by the batch
        ('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', (32, (640, 640))),  # CachedMosaic
        ('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', (2, (1024, 1024))),  # BatchFixedSizePad
        ('mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py', (2, (800, 1333))),  # ClassBalancedDataset
        ('mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py', (2, (600, 1000))),  # RepeatDataset, ConcatDataset
        ('mmdet::centernet/centernet_r18_8xb16-crop512-140e_coco.py', (16, (512, 512))),
        ('mmdet::ssd/ssd300_coco.py', (8, (300, 300))),
        ('mmseg::deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024.py', (2, (512, 1024))),
        ('mmseg::unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py', (4, (64, 64))),
        ('mmpretrain::resnet/resnet50_8xb32_in1k.py', (32, (224, 224))),
        ('mmpretrain::resnet/resnet18_8xb16_cifar10.py', (16, (32, 32))),
        ('mmpretrain::convnext/convnext-tiny_32xb128_in1k.py', (128, (224, 224))),
    ],
)
def test_of_upstreams_configs(name, expected):
    pytest.importorskip(name.partition('::')[0])
    assert training_input(upstream(name)) == expected


def with_pipeline(*transforms: dict) -> Config:
    config = detector_config()
    config.train_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), *transforms]
    return config


@pytest.mark.parametrize(
    ('transforms', 'expected'),
    [
        ([dict(type='Resize', scale=(320, 256), keep_ratio=False)], (256, 320)),
        ([dict(type='Resize', scale=(256, 320), keep_ratio=False)], (320, 256)),
        ([dict(type='Resize', scale=(256, 320), keep_ratio=True)], (256, 320)),
        ([dict(type='Resize', scale=640)], (640, 640)),
        ([dict(type='RandomResize', scale=(200, 100), ratio_range=(0.5, 2.0))], (200, 400)),
        (
            [dict(type='Resize', scale=(400, 200)), dict(type='RandomCrop', crop_size=(128, 512))],
            (200, 128),  # MMDetection's crop_size is width, height
        ),
        ([dict(type='RandomCrop', crop_type='absolute_range', crop_size=(384, 600))], (600, 600)),
        ([dict(type='Resize', scale=(400, 200)), dict(type='Pad', pad_to_square=True)], (400, 400)),
        ([dict(type='RandomChoiceResize', scales=[480, 640], max_size=900)], (640, 900)),
        ([dict(type='Resize', scale=(320, 256)), dict(type='Pad', size=(640, 512))], (512, 640)),
        (
            [dict(type='RandomChoice', transforms=[[dict(type='Resize', scale=(32 * n, 64))] for n in (1, 3)])],
            (64, 96),
        ),
        ([dict(type='Mosaic', img_scale=(320, 256))], (512, 640)),
    ],
)
def test_of_transforms(transforms, expected):
    assert training_input(with_pipeline(*transforms)) == (2, expected)


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({}, (28, 28)),
        (dict(padding=2), (32, 32)),
        (dict(padding=(0, 2)), (32, 28)),
        (dict(padding=(1, 0, 2, 3)), (31, 31)),
        (dict(pad_if_needed=True), (32, 32)),
    ],
)
def test_of_a_classifiers_padded_crop(options, expected):
    pytest.importorskip('mmpretrain')
    config = classifier_config()
    crop = dict(type='RandomCrop', crop_size=32) | options
    config.train_dataloader.dataset.pipeline = [dict(type='Resize', scale=28), crop]
    assert training_input(config)[1] == expected


@pytest.mark.parametrize(
    'transform', [dict(type='Resize', scale_factor=0.5), dict(type='Resize', scale=(-1, 800)), dict(type='RandomFlip')]
)
def test_images_that_decide_themselves(transform):
    with pytest.raises(ValueError, match='sets no image size .* set it with --input N H W of tools/fit.py'):
        training_input(with_pipeline(transform))


def test_portraits_and_landscapes_in_one_batch_are_padded_to_a_square():
    config = with_pipeline(dict(type='Resize', scale=(400, 200), keep_ratio=True))
    config.train_dataloader.batch_sampler = None
    assert training_input(config) == (2, (400, 400))
    config.train_dataloader.batch_size = 1
    assert training_input(config) == (1, (200, 400))


def test_of_a_segmentor_that_pads():
    assert training_input(segmentor_config()) == (2, (64, 64))


def test_batches_that_are_mixed_keep_their_size():
    config = upstream('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    config.model.data_preprocessor.batch_augments = dict(augments=[dict(type='Mixup', alpha=0.8)])  # MMPretrain's
    assert training_input(config) == (2, (800, 1333))
