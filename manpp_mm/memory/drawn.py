"""Drawn images and targets for a measured step."""

import numpy as np
import torch
from mmengine.structures import PixelData
from torch import nn


def drawn_batch(model: nn.Module, scope: str | None, batch: int, size: tuple[int, int], seed: int = 0) -> dict:
    """Random images and targets for a model, as its package's loaders give them.

    Args:
        model: A detector or segmentor.
        scope: Its config's ``default_scope``.
        batch: Images.
        size: Their height and width in pixels.
        seed: Of a segmentor's images and targets; a detector's are always the same.
    """
    if scope == 'mmseg':
        return draw_segmentation(model.num_classes, batch, size, seed)
    head = model.roi_head.bbox_head if hasattr(model, 'roi_head') else model.bbox_head
    head = head[-1] if isinstance(head, nn.ModuleList) else head  # a cascade
    return draw_detection(head.num_classes, batch, size, getattr(model, 'with_mask', False))


def draw_detection(num_classes: int, batch: int, size: tuple[int, int], with_mask: bool = False) -> dict:
    """Random images with 8 boxes each, as MMDetection's loaders give them; needs mmdet."""
    from mmdet.testing import demo_mm_inputs

    items = [8] * batch
    return demo_mm_inputs(
        batch, (3, *size), num_items=items, num_classes=num_classes, with_mask=with_mask, use_box_type=True
    )


def draw_segmentation(num_classes: int, batch: int, size: tuple[int, int], seed: int = 0) -> dict:
    """Random images with label maps of 32-pixel squares, as MMSegmentation's loaders give them; needs mmseg."""
    from mmseg.structures import SegDataSample

    generator = np.random.default_rng(seed)
    inputs, samples = [], []
    for _ in range(batch):
        inputs.append(torch.from_numpy(generator.integers(0, 255, (3, *size), dtype=np.uint8)))
        coarse = generator.integers(0, num_classes, (1, -(-size[0] // 32), -(-size[1] // 32)))
        labels = coarse.repeat(32, 1).repeat(32, 2)[:, : size[0], : size[1]]
        sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size))
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(labels))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)
