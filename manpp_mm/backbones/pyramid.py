"""Transformers with a patch embedding in each stage: PVT, PVTv2 and SegFormer's MixVisionTransformer."""

from collections.abc import Sequence

from mmengine.model import ModuleList
from torch import Tensor, nn

from .local_backbone import LocalBackbone
from .unit import ChannelsLast, Unit


class PyramidUnit(nn.Module):
    """A layer, with the stage's embeddings before its first layer and the norm after its last.

    Args:
        layer: The layer, which takes tokens (N, H * W, C) and (H, W).
        embed: The stage's patch embedding in its first unit, otherwise None.
        position: The stage's position embedding in its first unit, otherwise None.
        norm: The stage's norm in its last unit, otherwise None.

    Shape:
        (N, H, W, C) to (N, H, W, C), or with a patch embedding to (N, H / 2, W / 2, C').
    """

    def __init__(
        self,
        layer: nn.Module,
        embed: nn.Module | None = None,
        position: nn.Module | None = None,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.embed = embed
        self.position = position
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        if self.embed is None:
            tokens, size = x.flatten(1, 2), x.shape[1:3]
        else:
            tokens, size = self.embed(x.permute(0, 3, 1, 2))
        if self.position is not None:
            tokens = self.position(tokens, size)
        tokens = self.layer(tokens, size)
        if self.norm is not None:
            tokens = self.norm(tokens)
        return tokens.unflatten(1, size)


class LocalPyramidMixin(LocalBackbone):
    """Makes a pyramid transformer (PVT) local. Its units are its layers.

    Embeddings and norm of a stage belong to its first and its last unit. There is no stem: the first unit takes the
    images.
    """

    layout = ChannelsLast()
    transformer = True

    # Set by the parent class.
    embed_dims: int
    layers: ModuleList
    num_heads: Sequence[int]
    strides: Sequence[int]

    def units(self) -> list[Unit]:
        units, stride = [], 1
        for stage, (embed, layers, norm) in enumerate(self.layers):
            stride *= self.strides[stage]
            position = layers[0] if hasattr(layers[0], 'pos_embed') else None
            layers = layers[0 if position is None else 1 :]
            for index, layer in enumerate(layers):
                first, last = index == 0, index == len(layers) - 1
                module = PyramidUnit(
                    layer, embed if first else None, position if first else None, norm if last else None
                )
                channels = self.embed_dims * self.num_heads[stage]
                units.append(Unit((stage, index), module, channels, stride, self.output_after(stage, last)))
        return units

    def stem_parts(self) -> 'list[nn.Module | nn.Parameter]':
        return []

    def run_stem(self, images: Tensor) -> Tensor:
        return images.permute(0, 2, 3, 1)

    def output_map(self, stage: int, x: Tensor) -> Tensor:
        return self.layout.to_map(x).contiguous()


class LocalMiTMixin(LocalPyramidMixin):
    """Makes MMSegmentation's MixVisionTransformer local, which returns its maps without a copy."""

    def output_map(self, stage: int, x: Tensor) -> Tensor:
        return self.layout.to_map(x)
