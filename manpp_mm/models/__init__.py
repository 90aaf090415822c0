"""The learning rule inside MMLab models. ``detection`` needs mmdet, ``segmentation`` needs mmseg."""

from .auxiliary import AuxiliaryNetwork
from .local_backbone import LocalBackbone, LocalResNetMixin, find_local_backbone

__all__ = ['AuxiliaryNetwork', 'LocalBackbone', 'LocalResNetMixin', 'find_local_backbone']
