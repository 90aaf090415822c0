"""Auxiliary networks. ``detection`` and ``padded_fcos_head`` need mmdet, ``segmentation`` needs mmseg."""

from .network import AuxiliaryNetwork

__all__ = ['AuxiliaryNetwork']
