"""What is registered in MMSegmentation."""

from mmseg.models import ResNet, ResNetV1c, ResNetV1d, ResNeXt, SwinTransformer
from mmseg.registry import METRICS, MODELS, TRANSFORMS

from ..auxiliary.segmentation import SegmentationAuxiliary
from ..backbones import LocalResNetMixin, LocalSwinMixin
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
class LocalSwinTransformer(LocalSwinMixin, SwinTransformer):
    """MMSegmentation's ``SwinTransformer``, trained block by block; a unit is one Swin block."""

    auxiliary_type = SegmentationAuxiliary
