"""Models whose heads want other targets than boxes take a measured step."""

import pytest
import torch
from helpers import detector_config, upstream

from manpp_mm.memory import TrainingStep
from manpp_mm.memory.drawn import draw_detection

SIZE = (64, 96)


def step(name: str, **backbone: object) -> TrainingStep:
    """A step of an upstream model on a ResNet-18 of few channels."""
    config = upstream(name)
    config.model.backbone.update(depth=18, base_channels=8, frozen_stages=-1, **backbone)
    config.model.neck.in_channels = [width // 32 if width > 64 else width for width in config.model.neck.in_channels]
    return TrainingStep(config, 'end_to_end', 2, SIZE)


@pytest.mark.parametrize(
    'name',
    [
        'mmdet::solo/solo_r50_fpn_1x_coco.py',
        'mmdet::tood/tood_r50_fpn_1x_coco.py',  # its head asks for the epoch
        'mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
    ],
)
def test_other_heads(name):
    assert step(name).peak_bytes() > 0


def test_mask_transformers():
    config = upstream('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py')
    config.model.backbone.update(depth=18, base_channels=8)
    head = config.model.panoptic_head
    head.in_channels = [8, 16, 32, 64]
    head.transformer_decoder.num_layers = 1
    head.pixel_decoder.encoder.num_layers = 1
    head.num_transformer_feat_level = 3
    found = TrainingStep(config, 'end_to_end', 2, SIZE)
    assert tuple(found.data['inputs'].shape[-2:]) == SIZE  # not the 1024 x 1024 of BatchFixedSizePad
    found.run()


def test_a_single_class():
    labels = torch.cat([sample.gt_instances.labels for sample in draw_detection(1, 2, SIZE)['data_samples']])
    assert labels.tolist() == [0] * len(labels) and len(labels) == 16


def test_weights_of_a_part_are_not_fetched():
    config = detector_config()
    config.model.neck.init_cfg = [dict(type='Xavier', layer='Conv2d'), dict(type='Pretrained', checkpoint='none.pth')]
    assert TrainingStep(config, 'local', 2, SIZE).peak_bytes() > 0
    assert config.model.neck.init_cfg[1].checkpoint == 'none.pth'


def test_weights_that_a_backbone_fetches_by_itself_are_not_fetched():
    """PVT's init_cfg names a checkpoint and no type."""
    config = upstream('mmdet::pvt/retinanet_pvtv2-b0_fpn_1x_coco.py')
    assert config.model.backbone.init_cfg.keys() == {'checkpoint'}
    config.model.backbone.init_cfg.checkpoint = 'none.pth'
    assert TrainingStep(config, 'end_to_end', 1, SIZE).peak_bytes() > 0
