"""Local backbones: units, and the mixins that train them block by block."""

from .config import local_class, mode_of, plain_model
from .convnext import LocalConvNeXtMixin
from .csp import LocalCSPMixin
from .find import find_local_backbone, unwrapped
from .local_backbone import LocalBackbone
from .pyramid import LocalMiTMixin, LocalPyramidMixin
from .resnet import LocalCIFARResNetMixin, LocalClassifierResNetMixin, LocalRegNetMixin, LocalResNetMixin
from .swin import LocalClassifierSwinMixin, LocalSwinMixin
from .unit import ChannelsLast, Layout, Unit
from .vit import LocalClassifierViTMixin, LocalViTMixin

__all__ = [
    'ChannelsLast',
    'Layout',
    'LocalBackbone',
    'LocalCIFARResNetMixin',
    'LocalCSPMixin',
    'LocalClassifierResNetMixin',
    'LocalClassifierSwinMixin',
    'LocalClassifierViTMixin',
    'LocalConvNeXtMixin',
    'LocalMiTMixin',
    'LocalPyramidMixin',
    'LocalRegNetMixin',
    'LocalResNetMixin',
    'LocalSwinMixin',
    'LocalViTMixin',
    'Unit',
    'find_local_backbone',
    'local_class',
    'mode_of',
    'plain_model',
    'unwrapped',
]
