"""Local backbones and auxiliary networks of MMSegmentation."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.structures import PixelData
from mmseg.models import ResNet, ResNetV1c, ResNetV1d, ResNeXt
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from .auxiliary import AuxiliaryNetwork, constructor_parameters
from .local_backbone import LocalResNetMixin


class SegmentationAuxiliary(AuxiliaryNetwork):
    """Auxiliary network that ends in a decode head of MMSegmentation, ``FCNHead`` in the fragments.

    ``in_channels`` and ``in_index`` follow from the cut; ``norm_cfg`` is the backbone's unless the head has its own.

    Args:
        loss_resolution: ``'label'``: the head's loss as it is, on logits resized to the label map. ``'feature'``: on
            labels reduced (nearest) to the head's input, which spares the memory and time of full-size logits.
        args, kwargs: :class:`AuxiliaryNetwork`'s.

    Raises:
        ValueError: Another ``loss_resolution``; see :class:`AuxiliaryNetwork` for the others.
    """

    registry = MODELS

    def __init__(self, *args: Any, loss_resolution: str = 'label', **kwargs: Any) -> None:
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
            raise ValueError('remove auxiliary.head.in_index: the head sees its own block alone')
        config['in_index'] = 0
        if 'norm_cfg' in constructor_parameters(head_type):
            config.setdefault('norm_cfg', norm_cfg)

    def head_loss(self, head: nn.Module, levels: Sequence[Tensor], targets: Sequence) -> Mapping[str, Any]:
        if self.loss_resolution == 'feature':
            targets = [_reduced(sample, levels[0].shape[-2:]) for sample in targets]
        return head.loss(list(levels), targets, {})


def _reduced(sample: SegDataSample, size: tuple[int, int]) -> SegDataSample:
    labels = sample.gt_sem_seg.data  # (1, H, W)
    reduced = sample.new()
    reduced.gt_sem_seg = PixelData(data=resize(labels[None].float(), size=size, mode='nearest')[0].to(labels.dtype))
    return reduced


@MODELS.register_module()
class LocalResNet(LocalResNetMixin, ResNet):
    """MMSegmentation's ``ResNet``, trained block by block. See :class:`LocalBackbone` for the added arguments."""

    auxiliary_type = SegmentationAuxiliary


@MODELS.register_module()
class LocalResNetV1c(LocalResNetMixin, ResNetV1c):
    """MMSegmentation's ``ResNetV1c`` (deep stem), trained block by block."""

    auxiliary_type = SegmentationAuxiliary


@MODELS.register_module()
class LocalResNetV1d(LocalResNetMixin, ResNetV1d):
    """MMSegmentation's ``ResNetV1d`` (deep stem, average pooling downsample), trained block by block."""

    auxiliary_type = SegmentationAuxiliary


@MODELS.register_module()
class LocalResNeXt(LocalResNetMixin, ResNeXt):
    """MMSegmentation's ``ResNeXt`` (grouped convolutions), trained block by block."""

    auxiliary_type = SegmentationAuxiliary
