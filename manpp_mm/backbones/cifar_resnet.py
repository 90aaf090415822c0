"""The ResNets of CIFAR, which MMPretrain does not have."""

from collections.abc import Sequence
from typing import Any

from mmpretrain.models.backbones import ResNet_CIFAR
from mmpretrain.models.backbones.resnet import BasicBlock


class CIFARResNet(ResNet_CIFAR):
    """A ResNet of 6n + 2 layers for small images: one 3x3 convolution and three stages of n basic blocks.

    Source: He et al., Deep Residual Learning for Image Recognition (CVPR 2016), section 4.2. Where the channels change,
    the shortcut is a 1x1 convolution, as in MMPretrain's other ResNets.

    Args:
        depth: 6n + 2: 20, 32, 44, 56, 110, ...
        base_channels: Channels of the first stage; they double in each of the other two.
        stem_channels: Channels of the stem; by default those of the first stage.
        num_stages, strides, dilations, out_indices, kwargs: See MMPretrain's ``ResNet_CIFAR``.

    Shape:
        (N, 3, H, W) to a tuple of one map (N, 4 * base_channels, H / 4, W / 4).
    """

    arch_settings = {6 * n + 2: (BasicBlock, (n, n, n)) for n in range(1, 203)}

    def __init__(
        self,
        depth: int,
        base_channels: int = 16,
        stem_channels: int | None = None,
        num_stages: int = 3,
        strides: Sequence[int] = (1, 2, 2),
        dilations: Sequence[int] = (1, 1, 1),
        out_indices: Sequence[int] = (2,),
        **kwargs: Any,
    ) -> None:
        if depth not in self.arch_settings:
            raise ValueError(
                f'model.backbone.depth={depth}: a CIFARResNet has 6n + 2 layers, such as 20, 32, 56 or 110'
            )
        super().__init__(
            depth,
            base_channels=base_channels,
            stem_channels=stem_channels or base_channels,
            num_stages=num_stages,
            strides=strides,
            dilations=dilations,
            out_indices=out_indices,
            **kwargs,
        )
