"""ConvNeXt, as MMPretrain has it and MMDetection's and MMSegmentation's configs use it."""

from collections.abc import Iterable, Sequence

from mmengine.model import ModuleList
from torch import Tensor, nn

from .local_backbone import LocalBackbone
from .unit import Unit


class ConvNeXtUnit(nn.Module):
    """A ConvNeXt block, after the downsampling that leads to it where a stage begins.

    Args:
        block: The block.
        downsample: The stage's downsampling, None inside a stage.

    Shape:
        (N, C, H, W) to (N, C, H, W), through a downsampling to (N, C', H / 2, W / 2).
    """

    def __init__(self, block: nn.Module, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.block = block
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x if self.downsample is None else self.downsample(x))


class LocalConvNeXtMixin(LocalBackbone):
    """A ConvNeXt's units are its blocks; what downsamples belongs to the block after it.

    The first downsampling is the stem. The norm of a stage's output learns with the task: it acts on the detached map,
    in ordinary autograd.
    """

    transformer = True

    # The parent's.
    channels: Sequence[int]
    downsample_layers: ModuleList
    gap_before_final_norm: bool
    stages: Iterable[nn.Sequential]

    def units(self) -> list[Unit]:
        units, stride = [], 1
        for stage, (blocks, downsample) in enumerate(zip(self.stages, self.downsample_layers, strict=True)):
            stride *= next(m for m in downsample if isinstance(m, nn.Conv2d)).stride[0]
            for index, block in enumerate(blocks):
                module = ConvNeXtUnit(block, downsample if stage and index == 0 else None)
                output = self.output_after(stage, index == len(blocks) - 1)
                units.append(Unit((stage, index), module, self.channels[stage], stride, output))
        return units

    def stem_parts(self) -> 'list[nn.Module | nn.Parameter]':
        return [self.downsample_layers[0]]

    def stem_geometry(self) -> tuple[int, int]:
        return self.channels[0], next(m for m in self.downsample_layers[0] if isinstance(m, nn.Conv2d)).stride[0]

    def run_stem(self, images: Tensor) -> Tensor:
        return self.downsample_layers[0](images)

    def output_modules(self, stage: int) -> list[nn.Module]:
        return [getattr(self, f'norm{stage}')]

    def output_map(self, stage: int, x: Tensor) -> Tensor:
        norm = getattr(self, f'norm{stage}')
        if self.gap_before_final_norm:
            return norm(x.mean([-2, -1], keepdim=True)).flatten(1)
        return norm(x)
