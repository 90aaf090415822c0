"""Local backbones and data sets registered in MMPretrain."""

from mmpretrain.models import ConvNeXt, ResNet, ResNet_CIFAR, ResNeXt, SwinTransformer, VisionTransformer
from mmpretrain.registry import DATASETS, MODELS

from ..auxiliary.classification import ClassificationAuxiliary
from ..backbones import (
    LocalCIFARResNetMixin,
    LocalClassifierResNetMixin,
    LocalClassifierSwinMixin,
    LocalClassifierViTMixin,
    LocalConvNeXtMixin,
)
from ..backbones.cifar_resnet import CIFARResNet
from ..datasets.mosaics import MosaicDataset

MODELS.register_module(module=CIFARResNet)
DATASETS.register_module(module=MosaicDataset)


@MODELS.register_module()
class LocalResNet(LocalClassifierResNetMixin, ResNet):
    """MMPretrain's ``ResNet``, trained block by block. See :class:`LocalBackbone` for the added arguments."""

    auxiliary_type = ClassificationAuxiliary


@MODELS.register_module()
class LocalResNeXt(LocalClassifierResNetMixin, ResNeXt):
    """MMPretrain's ``ResNeXt`` (grouped convolutions), trained block by block."""

    auxiliary_type = ClassificationAuxiliary


@MODELS.register_module()
class LocalResNet_CIFAR(LocalCIFARResNetMixin, ResNet_CIFAR):
    """MMPretrain's ``ResNet_CIFAR`` (four stages for small images), trained block by block."""

    auxiliary_type = ClassificationAuxiliary


@MODELS.register_module()
class LocalCIFARResNet(LocalCIFARResNetMixin, CIFARResNet):
    """:class:`CIFARResNet`, trained block by block."""

    auxiliary_type = ClassificationAuxiliary


@MODELS.register_module()
class LocalVisionTransformer(LocalClassifierViTMixin, VisionTransformer):
    """MMPretrain's ``VisionTransformer``, trained block by block; a unit is a layer."""

    auxiliary_type = ClassificationAuxiliary


@MODELS.register_module()
class LocalSwinTransformer(LocalClassifierSwinMixin, SwinTransformer):
    """MMPretrain's ``SwinTransformer``, trained block by block; a unit is one Swin block."""

    auxiliary_type = ClassificationAuxiliary


@MODELS.register_module()
class LocalConvNeXt(LocalConvNeXtMixin, ConvNeXt):
    """MMPretrain's ``ConvNeXt``, trained block by block; a unit is a ConvNeXt block."""

    auxiliary_type = ClassificationAuxiliary
