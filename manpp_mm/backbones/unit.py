"""Units, between which a backbone is cut."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from ..local import Cut

STEM = (-1, 0)
"""The place of a stem that is a separate local block."""


@dataclass(frozen=True)
class Unit:
    """The smallest part of a backbone that can be cut off and that branches copy, such as a residual or Swin block.

    Attributes:
        cut: ``(stage, index)``, both counted from 0.
        module: Maps the trunk's ``x`` to the next one, in the family's layout. It uses the trunk's own modules and may
            be registered there or not. A branch is a deep copy of it.
        channels: Channels of its output.
        stride: Stride of its output in pixels.
        output: The stage that ends with this unit, if its map goes to neck and heads; otherwise None.
    """

    cut: Cut
    module: nn.Module
    channels: int
    stride: int
    output: int | None = None


def check_geometry(unit: Unit, features: Tensor, images: Tensor) -> None:
    """Check that a unit's output has the channels and the stride that the unit declares.

    Args:
        unit: The unit.
        features: Its output as a map (N, C, h, w).
        images: The batch (N, 3, H, W).

    Raises:
        RuntimeError: They differ, so auxiliary networks would be built for another map.
    """
    channels, *size = features.shape[1:]
    off = [abs(side * unit.stride - whole) for side, whole in zip(size, images.shape[2:], strict=True)]
    if channels != unit.channels or max(off) > unit.stride:  # sides that do not divide are rounded
        raise RuntimeError(
            f'unit {unit.cut} declares {unit.channels} channels at stride {unit.stride}, but its output for images of '
            f'{tuple(images.shape[2:])} pixels has {channels} channels and {tuple(size)} pixels: correct channels and '
            'stride in units(), or layout (docs/new_backbone.md)'
        )


class Layout:
    """The conversion between a trunk's ``x`` and a map for auxiliary networks; here, ``x`` is a map (N, C, H, W)."""

    def to_map(self, x: Tensor) -> Tensor:
        """Convert ``x`` to a map (N, C, H, W), without a copy."""
        return x

    def from_map(self, features: Tensor) -> Tensor:
        """Convert a map (N, C, H, W) to ``x``, without a copy."""
        return features

    def pooled(self, x: Tensor, pixels: int) -> Tensor:
        """Average-pool ``x`` by a number of pixels in each dimension, including partial windows at the border."""
        return self.from_map(F.avg_pool2d(self.to_map(x), pixels, ceil_mode=True))


class ChannelsLast(Layout):
    """The layout of a trunk whose ``x`` is (N, H, W, C)."""

    def to_map(self, x: Tensor) -> Tensor:
        """Convert ``x`` to a map (N, C, H, W), without a copy."""
        return x.permute(0, 3, 1, 2)

    def from_map(self, features: Tensor) -> Tensor:
        """Convert a map (N, C, H, W) to ``x``, without a copy."""
        return features.permute(0, 2, 3, 1)
