"""Local backbones and heads registered in MMDetection."""

from typing import Any

from mmdet.models import (
    CSPDarknet,
    CSPNeXt,
    PyramidVisionTransformer,
    PyramidVisionTransformerV2,
    RegNet,
    Res2Net,
    ResNeSt,
    ResNet,
    ResNetV1d,
    ResNeXt,
    SwinTransformer,
)
from mmdet.registry import MODELS

from ..auxiliary.detection import DetectionAuxiliary
from ..auxiliary.padded_fcos_head import PaddedFCOSHead
from ..backbones import (
    LocalConvNeXtMixin,
    LocalCSPMixin,
    LocalPyramidMixin,
    LocalRegNetMixin,
    LocalResNetMixin,
    LocalSwinMixin,
)
from ..compat import mmpretrain

MODELS.register_module(module=PaddedFCOSHead)


@MODELS.register_module()
class LocalResNet(LocalResNetMixin, ResNet):
    """MMDetection's ``ResNet``, trained block by block. See :class:`LocalBackbone` for the added arguments.

    Example:
        >>> backbone = LocalResNet(
        ...     depth=18, cuts=[(1, 1)],
        ...     auxiliary=dict(projection=dict(out_channels=64),
        ...                    head=dict(type='FCOSHead', num_classes=3, feat_channels=64, stacked_convs=1)))
        >>> [tuple(f.shape) for f in backbone.eval()(torch.rand(1, 3, 64, 64))]
        [(1, 64, 16, 16), (1, 128, 8, 8), (1, 256, 4, 4), (1, 512, 2, 2)]
    """

    auxiliary_type = DetectionAuxiliary


@MODELS.register_module()
class LocalResNetV1d(LocalResNetMixin, ResNetV1d):
    """MMDetection's ``ResNetV1d`` (deep stem, average pooling downsample), trained block by block."""

    auxiliary_type = DetectionAuxiliary


@MODELS.register_module()
class LocalResNeXt(LocalResNetMixin, ResNeXt):
    """MMDetection's ``ResNeXt`` (grouped convolutions), trained block by block."""

    auxiliary_type = DetectionAuxiliary


@MODELS.register_module()
class LocalResNeSt(LocalResNetMixin, ResNeSt):
    """MMDetection's ``ResNeSt`` (split attention), trained block by block."""

    auxiliary_type = DetectionAuxiliary


@MODELS.register_module()
class LocalRes2Net(LocalResNetMixin, Res2Net):
    """MMDetection's ``Res2Net`` (scales inside a block), trained block by block."""

    auxiliary_type = DetectionAuxiliary


@MODELS.register_module()
class LocalRegNet(LocalRegNetMixin, RegNet):
    """MMDetection's ``RegNet``, trained block by block."""

    auxiliary_type = DetectionAuxiliary


@MODELS.register_module()
class LocalCSPDarknet(LocalCSPMixin, CSPDarknet):
    """MMDetection's ``CSPDarknet`` (YOLOX), trained block by block; a unit is a part of a stage."""

    auxiliary_type = DetectionAuxiliary


@MODELS.register_module()
class LocalCSPNeXt(LocalCSPMixin, CSPNeXt):
    """MMDetection's ``CSPNeXt`` (RTMDet), trained block by block; a unit is a part of a stage."""

    auxiliary_type = DetectionAuxiliary


@MODELS.register_module()
class LocalPyramidVisionTransformer(LocalPyramidMixin, PyramidVisionTransformer):
    """MMDetection's ``PyramidVisionTransformer`` (PVT), trained block by block; a unit is a layer."""

    auxiliary_type = DetectionAuxiliary


@MODELS.register_module()
class LocalPyramidVisionTransformerV2(LocalPyramidMixin, PyramidVisionTransformerV2):
    """MMDetection's ``PyramidVisionTransformerV2``, trained block by block; a unit is a layer."""

    auxiliary_type = DetectionAuxiliary


@MODELS.register_module()
class LocalSwinTransformer(LocalSwinMixin, SwinTransformer):
    """MMDetection's ``SwinTransformer``, trained block by block; a unit is one Swin block."""

    auxiliary_type = DetectionAuxiliary


if (pretrain := mmpretrain.models()) is not None:
    ConvNeXt: Any = pretrain.ConvNeXt

    @MODELS.register_module()
    class LocalConvNeXt(LocalConvNeXtMixin, ConvNeXt):
        """MMPretrain's ``ConvNeXt``, trained block by block in a detector; a unit is a ConvNeXt block."""

        auxiliary_type = DetectionAuxiliary
