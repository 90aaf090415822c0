"""FCOS's head with a loss that does not wait for the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models import FCOSHead
from mmdet.models.dense_heads.fcos_head import INF
from mmdet.models.losses import CrossEntropyLoss, FocalLoss, GIoULoss, IoULoss
from mmdet.models.utils import unpack_gt_instances
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

_PADDED = 'padded boxes and labels'
_AT_ONCE = 2**21
"""Maximum number of (point, box) pairs to compare at once, which limits the images at once: about 100 MB in float32."""


@dataclass
class PointTargets:
    """Targets and loss weights of the P points of all levels, for a batch of N images.

    The weights include the normalizers of the losses: the number of foreground points or the sum of their centerness,
    averaged over processes.

    Attributes:
        sign: (N, classes, P), int8: -1 at the point's class, 1 elsewhere.
        class_weights: (N, classes, P): weights of the focal loss.
        distances: (N, 4, P): left, top, right, bottom to the sides of the point's box; 1 in the background.
        areas: (N, P): areas of the boxes of these distances.
        box_weights: (N, P): 0 in the background.
        centerness: (N, P): 0 in the background.
        centerness_weights: (N, P): 0 in the background.
    """

    sign: Tensor
    class_weights: Tensor
    distances: Tensor
    areas: Tensor
    box_weights: Tensor
    centerness: Tensor
    centerness_weights: Tensor


class PaddedFCOSHead(FCOSHead):
    """MMDetection's ``FCOSHead`` with its loss as one dense computation over padded boxes.

    Upstream's loss selects the foreground points by index, image by image, and waits for the device each time. Here,
    the boxes of a batch are padded to (N, G, 4), every point is compared with every box at once, and background points
    have weight 0. Losses and gradients equal upstream's up to rounding, with fewer operators and no synchronization.
    Several heads of one stride can share the targets (``shared`` of :meth:`loss`).

    A box loss between two boxes around one point depends only on the four distances, so no box is decoded.
    Source: FCOS (ICCV 2019).

    Args:
        args, kwargs: See ``FCOSHead``. ``loss_cls`` must be a sigmoid ``FocalLoss``, ``loss_bbox`` an ``IoULoss`` or
            ``GIoULoss``, ``loss_centerness`` a sigmoid ``CrossEntropyLoss`` without weights.

    Raises:
        ValueError: A loss has another type.

    Example:
        >>> head = PaddedFCOSHead(num_classes=3, in_channels=16, feat_channels=32, stacked_convs=1, strides=[16],
        ...                       regress_ranges=((-1, 1e8),))
        >>> [tuple(level.shape) for (level,) in head((torch.rand(2, 16, 10, 12),))]
        [(2, 3, 10, 12), (2, 4, 10, 12), (2, 1, 10, 12)]
    """

    plain = FCOSHead
    """The class that replaces it where this package is not installed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kept_points: dict[tuple, Tensor] = {}
        focal, box, centerness = self.loss_cls, self.loss_bbox, self.loss_centerness
        if type(focal) is not FocalLoss or focal.activated:
            self._refuse('loss_cls', focal, "a 'FocalLoss' of logits")
        if type(box) not in (IoULoss, GIoULoss):
            self._refuse('loss_bbox', box, "an 'IoULoss' or a 'GIoULoss'")
        if (
            type(centerness) is not CrossEntropyLoss
            or not centerness.use_sigmoid
            or centerness.class_weight is not None
            or centerness.avg_non_ignore
        ):
            self._refuse('loss_centerness', centerness, "a 'CrossEntropyLoss' with use_sigmoid and without weights")
        for key, loss in (('loss_cls', focal), ('loss_bbox', box), ('loss_centerness', centerness)):
            if loss.reduction != 'mean':
                self._refuse(key, loss, "one with reduction='mean'")

    @staticmethod
    def _refuse(key: str, loss: torch.nn.Module, known: str) -> None:
        raise ValueError(
            f'PaddedFCOSHead: {key} is a {type(loss).__name__}, but must be {known}; for other losses use FCOSHead'
        )

    def loss(self, x: Sequence[Tensor], batch_data_samples: Sequence, shared: dict | None = None) -> dict[str, Tensor]:
        """Run the head and return its losses.

        Args:
            x: The levels, (N, C, H, W) each.
            batch_data_samples: The N data samples.
            shared: A dict in which heads with the same samples share targets; None shares nothing.
        """
        instances, _, metas = unpack_gt_instances(batch_data_samples)
        scores, boxes, centernesses = self(x)
        return self.loss_by_feat(scores, boxes, centernesses, instances, metas, shared=shared)

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        centernesses: list[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: 'list[InstanceData] | None' = None,
        shared: 'dict | None' = None,
    ) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``loss_bbox`` and ``loss_centerness``, as ``FCOSHead.loss_by_feat`` does.

        Args:
            cls_scores: Logits (N, classes, H, W) of each level.
            bbox_preds: Distances (N, 4, H, W) to the box's sides, of each level.
            centernesses: Logits (N, 1, H, W) of each level.
            batch_gt_instances: Boxes and labels of each image.
            batch_img_metas, batch_gt_instances_ignore: Not used, as upstream.
            shared: See :meth:`loss`.
        """
        sizes = tuple((level.shape[-2], level.shape[-1]) for level in cls_scores)
        # Float32 under mixed precision; upstream's forward returns no finer distances.
        dtype = torch.promote_types(cls_scores[0].dtype, bbox_preds[0].dtype)
        shared = {} if shared is None else shared
        if _PADDED not in shared:
            shared[_PADDED] = pad_instances(batch_gt_instances)
        key = (
            PaddedFCOSHead, sizes, dtype, tuple(self.prior_generator.strides), tuple(self.regress_ranges),
            self.num_classes, self.center_sampling and self.center_sample_radius, self.norm_on_bbox,
            self.loss_cls.alpha,
        )  # fmt: skip
        if key not in shared:
            boxes, labels = shared[_PADDED]
            shared[key] = self.point_targets(sizes, boxes, labels, dtype)
        targets = shared[key]
        return dict(
            loss_cls=self._class_loss(_flat(cls_scores).to(dtype), targets),
            loss_bbox=self._box_loss(_flat(bbox_preds).to(dtype), targets),
            loss_centerness=self._centerness_loss(_flat(centernesses).squeeze(1).to(dtype), targets),
        )

    @torch.no_grad()
    def point_targets(
        self, sizes: Sequence[tuple[int, int]], boxes: Tensor, labels: Tensor, dtype: torch.dtype
    ) -> PointTargets:
        """Assign each point the smallest box that contains it (near the center), if the level matches the box.

        Args:
            sizes: Height and width of each level.
            boxes: (N, G, 4) as x1, y1, x2, y2 in pixels, padded with zeros; G is at least 1.
            labels: (N, G).
            dtype: Floating-point type of the targets.
        """
        device, boxes = boxes.device, boxes.to(dtype)
        counts = [height * width for height, width in sizes]
        points = self._points(sizes, dtype, device)
        at_once = max(1, _AT_ONCE // (boxes.shape[1] * points.shape[-1]))
        parts = [self._assigned(some, points, counts) for some in boxes.split(at_once)]
        area, chosen = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
        background = area >= INF
        label = labels.gather(1, chosen).masked_fill_(background, self.num_classes)
        positive = label[:, None] == torch.arange(self.num_classes, device=device)[:, None]
        box = boxes.mT.gather(2, chosen[:, None].expand(-1, 4, -1))
        near, far = points[:, 0] - box[:, :2], box[:, 2:] - points[:, 0]
        distances = torch.cat([near, far], 1).masked_fill_(background[:, None], 1)
        near, far = distances[:, :2], distances[:, 2:]
        ratio = torch.minimum(near, far) / torch.maximum(near, far)
        centerness = (ratio[:, 0] * ratio[:, 1]).sqrt().masked_fill_(background, 0)
        if self.norm_on_bbox:
            distances = distances / _by_level(self.strides, counts, dtype, device)
        foreground = (area < INF).to(dtype)
        number, weight = reduce_mean(torch.stack([foreground.sum(), centerness.sum()])).unbind()
        number, weight = number.clamp(min=1), weight.clamp(min=1e-6)
        sign = torch.rsub(positive.to(torch.int8), 1, alpha=2)
        class_weights = torch.rsub(sign.to(dtype), 0.5, alpha=self.loss_cls.alpha - 0.5)  # alpha, or 1 - alpha
        return PointTargets(
            sign=sign,
            class_weights=class_weights.div_(number),
            distances=distances,
            areas=_areas(distances),
            box_weights=centerness / weight,
            centerness=centerness,
            centerness_weights=foreground / number,
        )

    def _assigned(self, boxes: Tensor, points: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return for each point (n, P) the area of its box, INF without one, and the index of the box in (n, G, 4)."""
        dtype, device = boxes.dtype, boxes.device
        corners = boxes.mT.unsqueeze(-1)  # (n, 4, G, 1)
        low, high = corners[:, :2], corners[:, 2:]
        near, far = points - low, high - points  # (n, 2, G, P)
        # Every point lies outside padding boxes, which have no size.
        outside = torch.minimum(near, far).amin(1) <= 0
        if self.center_sampling:
            radius = _by_level([s * self.center_sample_radius for s in self.strides], counts, dtype, device)
            outside |= ((low + high) / 2 - points).abs().amax(1) >= radius
        if any(tuple(limits) != (-1, INF) for limits in self.regress_ranges):
            longest = torch.maximum(near, far).amax(1)
            lower, upper = zip(*self.regress_ranges, strict=True)
            outside |= longest < _by_level(lower, counts, dtype, device)
            outside |= longest > _by_level(upper, counts, dtype, device)
        size = high - low
        area, chosen = (size[:, 0] * size[:, 1]).masked_fill(outside, INF).min(1)
        return area, chosen

    def _points(self, sizes: Sequence[tuple[int, int]], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the points of all levels, (2, 1, P); cached until the image size changes."""
        key = (tuple(sizes), dtype, device)
        if key not in self.kept_points:
            levels = self.prior_generator.grid_priors(sizes, dtype=dtype, device=device)
            self.kept_points = {key: torch.cat(levels).T.contiguous()[:, None]}
        return self.kept_points[key]

    def _class_loss(self, logits: Tensor, targets: PointTargets) -> Tensor:
        # With z = logits * sign both halves of the focal loss read weight * sigmoid(z)^gamma * softplus(z).
        z = logits * targets.sign
        loss = z.sigmoid().pow(self.loss_cls.gamma) * F.softplus(z, threshold=50)
        return _weighted_sum(loss, targets.class_weights, self.loss_cls.loss_weight)

    def _box_loss(self, distances: Tensor, targets: PointTargets) -> Tensor:
        box = self.loss_bbox
        if type(box) is GIoULoss:
            # In the background, an overflowing enclosing area would give NaN despite the weight of 0.
            distances = distances.masked_fill(targets.box_weights[:, None] == 0, 1)
        # No union is smaller than the target's area, so upstream's bound of 1e-6 has no effect.
        both = torch.stack([distances, torch.minimum(distances, targets.distances)])
        areas, overlaps = _areas(both).unbind()
        unions = areas + targets.areas - overlaps
        ious = overlaps / unions
        if type(box) is GIoULoss:
            enclosing = _areas(torch.maximum(distances, targets.distances))
            return _weighted_sum(2 - ious - unions / enclosing, targets.box_weights, box.loss_weight)
        ious = ious.clamp(min=box.eps)
        if box.mode == 'log':
            return _weighted_sum(ious.log(), targets.box_weights, -box.loss_weight)
        return _weighted_sum(
            1 - (ious if box.mode == 'linear' else ious.square()), targets.box_weights, box.loss_weight
        )

    def _centerness_loss(self, logits: Tensor, targets: PointTargets) -> Tensor:
        loss = F.binary_cross_entropy_with_logits(
            logits, targets.centerness, targets.centerness_weights, reduction='sum'
        )
        return _scaled(loss, self.loss_centerness.loss_weight)


def pad_instances(instances: Sequence[InstanceData]) -> tuple[Tensor, Tensor]:
    """Return boxes (N, G, 4) and labels (N, G) of a batch, padded with zeros; G is at least 1."""
    boxes = pad_sequence([one.bboxes for one in instances], batch_first=True)
    labels = pad_sequence([one.labels for one in instances], batch_first=True)
    if not boxes.shape[1]:
        boxes, labels = boxes.new_zeros(len(instances), 1, 4), labels.new_zeros(len(instances), 1)
    return boxes, labels


def _flat(levels: Sequence[Tensor]) -> Tensor:
    """Flatten levels (N, C, H, W) to (N, C, P)."""
    flat = [level.flatten(2) for level in levels]
    return flat[0] if len(flat) == 1 else torch.cat(flat, 2)


def _by_level(values: Sequence[float], counts: Sequence[int], dtype: torch.dtype, device: torch.device) -> Any:
    """Return a value for each point of all levels (P), created on the device; for one level the value itself."""
    if len(counts) == 1:
        return values[0]
    filled = zip(values, counts, strict=True)
    return torch.cat([torch.full((count,), value, dtype=dtype, device=device) for value, count in filled])


def _areas(distances: Tensor) -> Tensor:
    """Return the areas (..., P) of boxes whose sides have distances (..., 4, P) to a point in them."""
    width, height = distances.unflatten(-2, (2, 2)).sum(-3).unbind(-2)
    return width * height


def _weighted_sum(values: Tensor, weights: Tensor, factor: float) -> Tensor:
    return _scaled(torch.dot(values.flatten(), weights.flatten()), factor)


def _scaled(loss: Tensor, factor: float) -> Tensor:
    return loss if factor == 1 else loss * factor
