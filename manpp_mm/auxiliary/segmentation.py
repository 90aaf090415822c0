"""Auxiliary networks of MMSegmentation."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..arguments import constructor_parameters
from .network import AuxiliaryNetwork


class SegmentationAuxiliary(AuxiliaryNetwork):
    """An auxiliary network with a decode head of MMSegmentation, ``FCNHead`` in the fragments.

    ``in_channels`` and ``in_index`` follow from the cut; ``norm_cfg`` is the backbone's unless the head sets its own.

    Args:
        loss_resolution: ``'feature'``: the head's loss at the resolution of its input, with the labels at the cell
            centers and without ``acc_seg``. ``'label'``: the head's own loss, with logits resized to the label map.
        args, kwargs: See :class:`AuxiliaryNetwork`.

    Raises:
        ValueError: ``loss_resolution`` is unknown; see also :class:`AuxiliaryNetwork`.
    """

    registry = MODELS

    def __init__(self, *args: Any, loss_resolution: str = 'feature', **kwargs: Any) -> None:
        if loss_resolution not in ('label', 'feature'):
            raise ValueError(f"auxiliary.loss_resolution={loss_resolution!r} must be 'label' or 'feature'")
        super().__init__(*args, **kwargs)
        self.loss_resolution = loss_resolution

    def complete_head(
        self, config: dict[str, Any], head_type: type, strides: list[int], norm_cfg: Mapping | None
    ) -> None:
        if 'num_classes' not in config:
            raise ValueError("auxiliary.head needs num_classes, the number of the data set's classes")
        if 'in_index' in config:
            raise ValueError('remove auxiliary.head.in_index: the head sees only its own block')
        config['in_index'] = 0
        if 'norm_cfg' in constructor_parameters(head_type):
            if norm_cfg is None and 'norm_cfg' not in config:
                raise ValueError(
                    'auxiliary.head needs norm_cfg, because this backbone has none: set it, for example to '
                    "dict(type='SyncBN'), or to None for a head without normalization"
                )
            config.setdefault('norm_cfg', norm_cfg)

    def head_loss(
        self, head: BaseModule, levels: Sequence[Tensor], targets: Sequence, shared: dict
    ) -> Mapping[str, Any]:
        if self.loss_resolution == 'label':
            return head.loss(list(levels), targets, {})
        height, width = levels[0].shape[-2:]
        size = height, width
        key = (SegmentationAuxiliary, size)
        if key not in shared:
            shared[key] = _labels_at_centres(targets, size)
        labels = shared[key]
        if _loses_as_decode_head(head):
            return _losses(head, head(list(levels)), labels)
        return head.loss(list(levels), [_relabelled(*pair) for pair in zip(targets, labels, strict=True)], {})


def _labels_at_centres(samples: Sequence[SegDataSample], size: tuple[int, int]) -> Tensor:
    """Sample label maps (1, H, W) at the centers of h x w cells: (N, 1, h, w)."""
    labels = torch.stack([sample.gt_sem_seg.data for sample in samples])
    return resize(labels.float(), size=size, mode='nearest-exact').to(labels.dtype)


def _loses_as_decode_head(head: BaseModule) -> bool:
    kind = type(head)
    inherits = kind.loss is BaseDecodeHead.loss and kind.loss_by_feat is BaseDecodeHead.loss_by_feat
    return inherits and head.sampler is None


def _losses(head: BaseDecodeHead, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Compute ``BaseDecodeHead.loss_by_feat`` on labels (N, 1, h, w), without the accuracy."""
    size = labels.shape[-2:]
    if logits.shape[-2:] != size:
        logits = resize(logits, size=size, mode='bilinear', align_corners=head.align_corners)
    labels = labels.squeeze(1)
    found: dict[str, Tensor] = {}
    several = isinstance(head.loss_decode, nn.ModuleList)
    terms: list[BaseModule] = list(head.loss_decode) if several else [head.loss_decode]
    for loss in terms:
        value = loss(logits, labels, ignore_index=head.ignore_index)
        found[loss.loss_name] = found[loss.loss_name] + value if loss.loss_name in found else value
    return found


def _relabelled(sample: SegDataSample, labels: Tensor) -> SegDataSample:
    relabelled = sample.new()
    relabelled.gt_sem_seg = PixelData(data=labels)
    return relabelled
