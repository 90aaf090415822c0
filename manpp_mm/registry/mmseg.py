"""Local backbones, transforms and metrics registered in MMSegmentation."""

from typing import Any

from mmseg.models import (
    MixVisionTransformer,
    ResNeSt,
    ResNet,
    ResNetV1c,
    ResNetV1d,
    ResNeXt,
    SwinTransformer,
    VisionTransformer,
)
from mmseg.registry import METRICS, MODELS, TRANSFORMS

from ..auxiliary.segmentation import SegmentationAuxiliary
from ..backbones import LocalConvNeXtMixin, LocalMiTMixin, LocalResNetMixin, LocalSwinMixin, LocalViTMixin
from ..compat import mmpretrain
from ..datasets.check_labels import CheckLabels
from ..evaluation.iou import PresentClassIoUMetric

TRANSFORMS.register_module(module=CheckLabels)
METRICS.register_module(module=PresentClassIoUMetric)


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


@MODELS.register_module()
class LocalResNeSt(LocalResNetMixin, ResNeSt):
    """MMSegmentation's ``ResNeSt`` (split attention), trained block by block."""

    auxiliary_type = SegmentationAuxiliary


@MODELS.register_module()
class LocalMixVisionTransformer(LocalMiTMixin, MixVisionTransformer):
    """MMSegmentation's ``MixVisionTransformer`` (SegFormer), trained block by block; a unit is a layer."""

    auxiliary_type = SegmentationAuxiliary


@MODELS.register_module()
class LocalVisionTransformer(LocalViTMixin, VisionTransformer):
    """MMSegmentation's ``VisionTransformer``, trained block by block; a unit is a layer.

    Local heads see the map of the patches.
    """

    auxiliary_type = SegmentationAuxiliary


@MODELS.register_module()
class LocalSwinTransformer(LocalSwinMixin, SwinTransformer):
    """MMSegmentation's ``SwinTransformer``, trained block by block; a unit is one Swin block."""

    auxiliary_type = SegmentationAuxiliary


if (pretrain := mmpretrain.models()) is not None:
    ConvNeXt: Any = pretrain.ConvNeXt

    @MODELS.register_module()
    class LocalConvNeXt(LocalConvNeXtMixin, ConvNeXt):
        """MMPretrain's ``ConvNeXt``, trained block by block in a segmentor; a unit is a ConvNeXt block."""

        auxiliary_type = SegmentationAuxiliary
