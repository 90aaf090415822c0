"""The ResNets of MMDetection, MMSegmentation and MMPretrain, and backbones derived from them."""

from collections.abc import Mapping, Sequence
from math import prod

from mmengine.model import BaseModule
from torch import Tensor, nn

from .local_backbone import LocalBackbone
from .unit import Unit


class LocalResNetMixin(LocalBackbone):
    """Makes a ResNet (V1c, V1d, ResNeXt, ResNeSt, Res2Net) local. Its units are its residual blocks."""

    # Set by the parent class.
    base_channels: int
    block: type[BaseModule]
    conv1: nn.Module
    deep_stem: bool
    maxpool: nn.Module
    norm1: nn.Module
    norm_cfg: Mapping | None
    relu: nn.Module
    res_layers: list[str]
    stem: nn.Module
    strides: Sequence[int]

    def units(self) -> list[Unit]:
        units = []
        for stage, name in enumerate(self.res_layers):
            blocks = getattr(self, name)
            geometry = self.stage_geometry(stage)
            for index, block in enumerate(blocks):
                output = self.output_after(stage, index == len(blocks) - 1)
                units.append(Unit((stage, index), block, *geometry, output))
        return units

    def stage_geometry(self, stage: int) -> tuple[int, int]:
        """Return the channels of a stage's output and its stride in pixels."""
        return self.base_channels * 2**stage * self.block.expansion, 4 * prod(self.strides[: stage + 1])

    def head_norm_cfg(self) -> Mapping | None:
        return self.norm_cfg

    def stem_parts(self) -> 'list[nn.Module | nn.Parameter]':
        return [self.stem] if self.deep_stem else [self.conv1, self.norm1]

    def stem_geometry(self) -> tuple[int, int]:
        return self._stem_channels(), 4

    def _stem_channels(self) -> int:
        modules = self.stem.modules() if self.deep_stem else [self.conv1]
        return [m for m in modules if isinstance(m, nn.Conv2d)][-1].out_channels

    def run_stem(self, images: Tensor) -> Tensor:
        x = self.stem(images) if self.deep_stem else self.relu(self.norm1(self.conv1(images)))
        return self.maxpool(x)


class LocalRegNetMixin(LocalResNetMixin):
    """Makes a RegNet local. Its stages have individual widths, and no pooling follows the first convolution."""

    stage_widths: Sequence[int]  # set by the parent class

    def stage_geometry(self, stage: int) -> tuple[int, int]:
        return self.stage_widths[stage], 2 * prod(self.strides[: stage + 1])

    def stem_geometry(self) -> tuple[int, int]:
        return self._stem_channels(), 2

    def run_stem(self, images: Tensor) -> Tensor:
        return self.relu(self.norm1(self.conv1(images)))


class LocalClassifierResNetMixin(LocalResNetMixin):
    """Makes MMPretrain's ResNet and ResNeXt local."""

    expansion: int  # set by the parent class

    def stage_geometry(self, stage: int) -> tuple[int, int]:
        return self.base_channels * 2**stage * self.expansion, self.stem_geometry()[1] * prod(self.strides[: stage + 1])


class LocalCIFARResNetMixin(LocalClassifierResNetMixin):
    """Makes a ResNet for small images local. Its stem is one convolution at full resolution."""

    small_images = True

    def stem_geometry(self) -> tuple[int, int]:
        return self._stem_channels(), 1

    run_stem = LocalRegNetMixin.run_stem  # no pooling here either
