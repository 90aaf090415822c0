"""Auxiliary networks of MMDetection."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.models import ATSSHead, FCOSHead, GFLHead, RetinaHead
from mmdet.models.dense_heads.fcos_head import INF
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from ..arguments import constructor_parameters
from .network import AuxiliaryNetwork
from .padded_fcos_head import PaddedFCOSHead

# On one level, MaxIoUAssigner's `gt_max_assign_all` would make every anchor inside a large object positive.
_MAX_IOU = dict(
    assigner=dict(
        type='MaxIoUAssigner',
        pos_iou_thr=0.5,
        neg_iou_thr=0.4,
        min_pos_iou=0,
        gt_max_assign_all=False,
        ignore_iof_thr=-1,
    ),
    sampler=dict(type='PseudoSampler'),
    allowed_border=-1,
    pos_weight=-1,
    debug=False,
)
_ANCHORS = dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0])
_ATSS = dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1, debug=False)


class DetectionAuxiliary(AuxiliaryNetwork):
    """An auxiliary network with dense heads of MMDetection, on one level or on the levels of a neck.

    ``in_channels``, ``strides``, the anchors' strides, FCOS's ``regress_ranges`` and the ``train_cfg`` of RetinaNet,
    ATSS and GFL heads are derived; other heads need their own ``train_cfg``. Norm layers are not taken from the
    backbone: dense heads have none, or their own default.
    """

    registry = MODELS

    def complete_head(
        self, config: dict[str, Any], head_type: type, strides: list[int], norm_cfg: Mapping | None
    ) -> None:
        names = constructor_parameters(head_type)
        if 'num_classes' in names and 'num_classes' not in config:
            raise ValueError("auxiliary.head needs num_classes, the number of the data set's classes")
        for key in ('strides', 'regress_ranges'):
            if key in config:
                raise ValueError(f'remove auxiliary.head.{key}: it follows from the cut (strides {strides})')
        if 'anchor_generator' in names:
            anchors = dict(config.get('anchor_generator', _ANCHORS))
            if head_type in (ATSSHead, GFLHead) and 'anchor_generator' not in config:
                anchors |= dict(octave_base_scale=8, scales_per_octave=1, ratios=[1.0])
            if 'strides' in anchors:
                raise ValueError(f'remove auxiliary.head.anchor_generator.strides: it follows from the cut ({strides})')
            config['anchor_generator'] = anchors | dict(strides=strides)
        elif 'strides' in names:
            config['strides'] = strides
        if 'regress_ranges' in names:
            config['regress_ranges'] = _regress_ranges(strides)
        if 'train_cfg' not in config:
            self._derive_train_cfg(config, head_type)

    @staticmethod
    def _derive_train_cfg(config: dict[str, Any], head_type: type) -> None:
        # Not for subclasses: most have their own assigner.
        if head_type in (ATSSHead, GFLHead):
            config['train_cfg'] = _ATSS
        elif head_type is RetinaHead:
            config['train_cfg'] = _MAX_IOU
        elif head_type not in (FCOSHead, PaddedFCOSHead):
            raise ValueError(
                f'auxiliary.head of type {head_type.__name__} needs a train_cfg (its assigner), as in '
                "model.train_cfg of the head's detector; None for a head without one"
            )

    def head_loss(
        self, head: BaseModule, levels: Sequence[Tensor], targets: Sequence, shared: dict
    ) -> Mapping[str, Any]:
        if isinstance(head, PaddedFCOSHead):
            return head.loss(tuple(levels), targets, shared)
        return head.loss(tuple(levels), targets)


def _regress_ranges(strides: list[int]) -> tuple[tuple[float, float], ...]:
    """Return the range of lengths in pixels for each level: upstream's 8 times the stride, open at both ends."""
    bounds = [-1, *(8 * stride for stride in strides[:-1]), INF]
    return tuple(itertools.pairwise(bounds))
