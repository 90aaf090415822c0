"""The Swin Transformers of MMDetection, MMSegmentation and MMPretrain."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from .local_backbone import LocalBackbone
from .unit import ChannelsLast, Unit
from .vit import resize_position_embedding


class SwinUnit(nn.Module):
    """A Swin block, with the patch merging before it at the start of a stage.

    Args:
        block: The block.
        merging: The ``downsample`` of the previous stage, None inside a stage.

    Shape:
        (N, H, W, C) to (N, H, W, C), or with merging to (N, H / 2, W / 2, 2 C).
    """

    def __init__(self, block: nn.Module, merging: nn.Module | None = None) -> None:
        super().__init__()
        self.block = block
        self.merging = merging

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[1:3]
        x = x.flatten(1, 2)
        if self.merging is not None:
            x, size = self.merging(x, size)
        return self.block(x, size).unflatten(1, size)


class LocalSwinMixin(LocalBackbone):
    """Makes a Swin Transformer local. Its units are its blocks; a patch merging belongs to the block after it.

    Patch embedding and position embedding are the stem. The task trains the norm of a stage's output, which acts on the
    detached map in ordinary autograd.
    """

    layout = ChannelsLast()
    transformer = True

    # Set by the parent class.
    absolute_pos_embed: nn.Parameter
    drop_after_pos: nn.Module
    embed_dims: int
    num_features: Sequence[int]
    patch_embed: BaseModule
    stages: ModuleList
    use_abs_pos_embed: bool

    @classmethod
    def planning_size(cls, backbone: Mapping) -> tuple[int, int]:
        """Return a size that windows divide at every stride, because padded windows do not grow with the image."""
        stages = backbone.get('stage_cfgs') or {}
        stages = [stages] if isinstance(stages, Mapping) else stages
        windows = [(stage.get('block_cfgs') or {}).get('window_size', 0) for stage in stages]
        side = 32 * max([backbone.get('window_size', 7), *windows])
        return side, 5 * side

    def units(self) -> list[Unit]:
        units = []
        stride = self.patch_embed.projection.stride[0]
        merging = None
        for stage, (sequence, channels) in enumerate(zip(self.stages, self.num_features, strict=True)):
            stride *= merging.sampler.stride[0] if merging is not None else 1
            for index, block in enumerate(sequence.blocks):
                module = SwinUnit(block, merging if index == 0 else None)
                output = self.output_after(stage, index == len(sequence.blocks) - 1)
                units.append(Unit((stage, index), module, channels, stride, output))
            merging = sequence.downsample
        return units

    def stem_parts(self) -> 'list[nn.Module | nn.Parameter]':
        position = [self.absolute_pos_embed] if self.use_abs_pos_embed else []
        return [self.patch_embed, self.drop_after_pos, *position]

    def stem_geometry(self) -> tuple[int, int]:
        return self.embed_dims, self.patch_embed.projection.stride[0]

    def run_stem(self, images: Tensor) -> Tensor:
        x, size = self.patch_embed(images)
        if self.use_abs_pos_embed:
            x = x + self.position_embedding(size)
        return self.drop_after_pos(x).unflatten(1, size)

    def position_embedding(self, size: tuple[int, int]) -> Tensor:
        """Return the position embedding of a map of a height and width."""
        return self.absolute_pos_embed

    def output_modules(self, stage: int) -> list[nn.Module]:
        return [getattr(self, f'norm{stage}')]

    def output_map(self, stage: int, x: Tensor) -> Tensor:
        return getattr(self, f'norm{stage}')(x).permute(0, 3, 1, 2).contiguous()


class LocalClassifierSwinMixin(LocalSwinMixin):
    """Makes MMPretrain's Swin Transformer local, which resizes its position embedding."""

    def __init__(self, *args: Any, out_after_downsample: bool = False, **kwargs: Any) -> None:
        if out_after_downsample:
            raise ValueError(
                'model.backbone.out_after_downsample=True: a patch merging belongs to the block after it. Set it to '
                f'False, or use the plain {self.plain.__name__}'
            )
        super().__init__(*args, **kwargs)

    def position_embedding(self, size: tuple[int, int]) -> Tensor:
        return resize_position_embedding(self, self.absolute_pos_embed, size)
