"""What a backbone is cut between."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from ..local import Cut

STEM = (-1, 0)
"""The place of a stem that is a local block of its own."""


@dataclass(frozen=True)
class Unit:
    """What a backbone can be cut after and what branches copy: a residual block, a Swin block.

    Attributes:
        cut: ``(stage, index)``, both from 0.
        module: Maps the trunk's ``x`` to the next one, in the family's layout. It refers to the trunk's own modules and
            may be registered there or not. A branch is a deep copy of it.
        channels: Channels of its output.
        stride: Stride of its output in pixels.
        output: The stage that ends with this unit, if its map goes to neck and heads; None otherwise.
    """

    cut: Cut
    module: nn.Module
    channels: int
    stride: int
    output: int | None = None


def check_geometry(unit: Unit, features: Tensor, images: Tensor) -> None:
    """Has a unit's output the channels and the stride that the unit says?

    Args:
        unit: The unit.
        features: Its output as a map (N, C, h, w).
        images: The batch (N, 3, H, W).

    Raises:
        RuntimeError: It has not; auxiliary networks would be built for another map.
    """
    channels, *size = features.shape[1:]
    off = [abs(side * unit.stride - whole) for side, whole in zip(size, images.shape[2:], strict=True)]
    if channels != unit.channels or max(off) > unit.stride:  # sides that do not divide are rounded
        raise RuntimeError(
            f'unit {unit.cut} says that its output has {unit.channels} channels at stride {unit.stride}, but of images '
            f'{tuple(images.shape[2:])} it makes a map of {channels} channels and {tuple(size)} pixels: see channels '
            'and stride in units(), and layout (docs/new_backbone.md)'
        )


class Layout:
    """How a trunk's ``x`` (N, C, H, W) becomes a map for auxiliary networks, and a map ``x``: it is one already."""

    def to_map(self, x: Tensor) -> Tensor:
        """The map (N, C, H, W) of ``x``, without a copy."""
        return x

    def from_map(self, features: Tensor) -> Tensor:
        """``x`` of a map (N, C, H, W), without a copy."""
        return features

    def pooled(self, x: Tensor, pixels: int) -> Tensor:
        """``x`` with so many pixels each way averaged into one; those at the border that fill no window count, too."""
        return self.from_map(F.avg_pool2d(self.to_map(x), pixels, ceil_mode=True))


class ChannelsLast(Layout):
    """The layout of a trunk whose ``x`` is (N, H, W, C)."""

    def to_map(self, x: Tensor) -> Tensor:
        """The map (N, C, H, W) of ``x``, without a copy."""
        return x.permute(0, 3, 1, 2)

    def from_map(self, features: Tensor) -> Tensor:
        """``x`` of a map (N, C, H, W), without a copy."""
        return features.permute(0, 2, 3, 1)
