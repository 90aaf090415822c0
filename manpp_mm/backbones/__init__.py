"""What a backbone is to us: units, and the mixin that trains them block by block."""

from .config import local_class, mode_of, plain_model
from .find import find_local_backbone, unwrapped
from .local_backbone import LocalBackbone
from .resnet import LocalResNetMixin
from .swin import LocalSwinMixin
from .unit import ChannelsLast, Layout, Unit

__all__ = [
    'ChannelsLast',
    'Layout',
    'LocalBackbone',
    'LocalResNetMixin',
    'LocalSwinMixin',
    'Unit',
    'find_local_backbone',
    'local_class',
    'mode_of',
    'plain_model',
    'unwrapped',
]
