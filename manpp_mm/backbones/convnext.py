"""MMPretrain's ConvNeXt, which configs of MMDetection and MMSegmentation use as well."""

from collections.abc import Iterable, Sequence

from mmengine.model import ModuleList
from torch import Tensor, nn

from .local_backbone import LocalBackbone
from .unit import Unit


class ConvNeXtUnit(nn.Module):
    """A ConvNeXt block, with the downsampling before it at the start of a stage.

    Args:
        block: The block.
        downsample: The stage's downsampling, None inside a stage.

    Shape:
        (N, C, H, W) to (N, C, H, W), or with downsampling to (N, C', H / 2, W / 2).
    """

    def __init__(self, block: nn.Module, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.block = block
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x if self.downsample is None else self.downsample(x))


class LocalConvNeXtMixin(LocalBackbone):
    """Makes a ConvNeXt local. Its units are its blocks; a downsampling layer belongs to the block after it.

    The first downsampling is the stem. The task trains the norm of a stage's output, which acts on the detached map in
    ordinary autograd.
    """

    transformer = True

    # Set by the parent class.
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
