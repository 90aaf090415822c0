"""Random images and targets for a measured step."""

import numpy as np
import torch
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.structures import PixelData
from torch import Tensor, nn

BOXES = 8
"""Number of boxes in each image for a detector."""


def drawn_batch(model: BaseModel, scope: str | None, batch: int, size: tuple[int, int], seed: int = 0) -> dict:
    """Draw random images and targets for a model, in the format of its package's loaders.

    Args:
        model: A detector, segmentor or classifier.
        scope: Its config's ``default_scope``.
        batch: Number of images.
        size: Their height and width in pixels.
        seed: Seed for a segmentor's or classifier's images and targets, and for a detector's label maps; a detector's
            images, boxes and masks are always the same.

    Raises:
        ValueError: No head of a detector has ``num_classes``.
    """
    if scope == 'mmseg':
        return draw_segmentation(model.num_classes, batch, size, seed)
    if scope == 'mmpretrain':
        return draw_classification(model.head.num_classes, batch, size, seed)
    if MessageHub.get_current_instance().get_info('epoch') is None:
        MessageHub.get_current_instance().update_info('epoch', 0)  # some heads read the epoch
    data = draw_detection(_box_classes(model), batch, size, _needs_masks(model))
    semantic = _semantic(model)
    if semantic is not None:
        classes, stride = semantic
        maps = draw_labels(classes, batch, (size[0] // stride, size[1] // stride), seed)
        for sample, labels in zip(data['data_samples'], maps, strict=True):
            sample.gt_sem_seg = PixelData(sem_seg=labels)
    return data


def _box_classes(model: BaseModel) -> int:
    """Return the number of classes of a detector's boxes; the number of things for a panoptic model."""
    heads = [getattr(getattr(model, 'roi_head', None), 'bbox_head', None)]
    heads += [getattr(model, name, None) for name in ('panoptic_head', 'bbox_head', 'mask_head')]
    for head in heads:
        head = head[-1] if isinstance(head, nn.ModuleList) and len(head) else head  # a cascade
        for key in ('num_things_classes', 'num_classes'):
            if isinstance(getattr(head, key, None), int):
                return getattr(head, key)
    raise ValueError(f'{type(model).__name__} has no head with num_classes, which is needed to draw boxes')


def _needs_masks(model: BaseModel) -> bool:
    if getattr(model, 'with_mask', False) or hasattr(model, 'panoptic_head'):
        return True
    # A dense head that predicts masks, such as RTMDet-Ins.
    return any('mask' in name for name, _ in getattr(model, 'bbox_head', nn.Module()).named_children())


def _semantic(model: BaseModel) -> tuple[int, int] | None:
    """Return classes and stride in pixels of the label maps that a detector also learns from, None without any."""
    panoptic = getattr(model, 'panoptic_head', None)
    if panoptic is not None and getattr(panoptic, 'num_stuff_classes', None):
        return panoptic.num_things_classes + panoptic.num_stuff_classes, 1
    if getattr(model, 'semantic_head', None) is not None:
        return model.semantic_head.num_things_classes + model.semantic_head.num_stuff_classes, 1
    fused = getattr(getattr(model, 'roi_head', None), 'semantic_head', None)
    return None if fused is None else (fused.num_classes, 8)  # HTC's loader scales them down


def draw_detection(num_classes: int, batch: int, size: tuple[int, int], with_mask: bool = False) -> dict:
    """Draw images with :data:`BOXES` boxes each, in the format of MMDetection's loaders; needs mmdet."""
    from mmdet.testing import demo_mm_inputs

    # It draws labels starting at 1, so a single class would get none.
    data = demo_mm_inputs(
        batch, (3, *size), num_items=[BOXES] * batch, num_classes=max(num_classes, 2), with_mask=with_mask,
        use_box_type=True,
    )  # fmt: skip
    for sample in data['data_samples']:
        sample.gt_instances.labels %= num_classes
    return data


def draw_labels(num_classes: int, batch: int, size: tuple[int, int], seed: int) -> list[Tensor]:
    """Draw label maps (1, H, W) of 32-pixel squares."""
    generator = np.random.default_rng(seed)
    return [_squares(generator, num_classes, size) for _ in range(batch)]


def _squares(generator: np.random.Generator, num_classes: int, size: tuple[int, int]) -> Tensor:
    coarse = generator.integers(0, num_classes, (1, -(-size[0] // 32), -(-size[1] // 32)))
    return torch.from_numpy(coarse.repeat(32, 1).repeat(32, 2)[:, : size[0], : size[1]])


def draw_segmentation(num_classes: int, batch: int, size: tuple[int, int], seed: int = 0) -> dict:
    """Draw images with label maps of 32-pixel squares, in the format of MMSegmentation's loaders; needs mmseg."""
    from mmseg.structures import SegDataSample

    generator = np.random.default_rng(seed)
    inputs, samples = [], []
    for _ in range(batch):
        inputs.append(torch.from_numpy(generator.integers(0, 255, (3, *size), dtype=np.uint8)))
        sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size))
        sample.gt_sem_seg = PixelData(data=_squares(generator, num_classes, size))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def draw_classification(num_classes: int, batch: int, size: tuple[int, int], seed: int = 0) -> dict:
    """Draw images with labels, in the format of MMPretrain's loaders; needs mmpretrain."""
    from mmpretrain.structures import DataSample

    generator = np.random.default_rng(seed)
    inputs = torch.from_numpy(generator.integers(0, 255, (batch, 3, *size), dtype=np.uint8))
    samples = [DataSample().set_gt_label(int(label)) for label in generator.integers(0, num_classes, batch)]
    return dict(inputs=inputs, data_samples=samples)
