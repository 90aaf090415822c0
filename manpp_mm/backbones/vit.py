"""The Vision Transformers of MMSegmentation and MMPretrain."""

from collections.abc import Callable
from typing import Any

import torch
from mmengine.model import BaseModule, ModuleList
from torch import Size, Tensor, nn
from torch.nn import functional as F

from ..local import Cut
from .local_backbone import LocalBackbone
from .unit import ChannelsLast, Unit


class Patches(ChannelsLast):
    """The layout of a trunk whose ``x`` has only the tokens of patches, (N, H, W, C)."""

    @staticmethod
    def pack(tokens: Tensor, size: 'Size | tuple[int, int]') -> Tensor:
        """Convert tokens (N, L, C) of a map of a height and width to ``x``."""
        return tokens.unflatten(1, size)

    @staticmethod
    def unpack(x: Tensor) -> Tensor:
        """Return the tokens of ``x``, without a copy."""
        return x.flatten(1, 2)


class ClassToken(Patches):
    """The layout of a trunk whose ``x`` has a class token, (N, H + 1, W, C), at the end of a row above the patches.

    The rest of that row is zero and never used. Thus tokens (N, 1 + H * W, C) are a view of ``x``, whose shape gives
    height and width.
    """

    def to_map(self, x: Tensor) -> Tensor:
        """Return the map (N, C, H, W) of the patches, without a copy."""
        return super().to_map(x[:, 1:])

    def pooled(self, x: Tensor, pixels: int) -> Tensor:
        """Average-pool the patches of ``x``; the class token does not change."""
        patches = super().pooled(x, pixels)
        return self.pack(torch.cat([x[:, 0, -1:], patches.flatten(1, 2)], 1), patches.shape[1:3])

    @staticmethod
    def class_token(x: Tensor) -> Tensor:
        """Return the class token (N, C) of ``x``."""
        return x[:, 0, -1]

    @staticmethod
    def pack(tokens: Tensor, size: 'Size | tuple[int, int]') -> Tensor:
        """Convert tokens (N, 1 + H * W, C), the class token first, of a map of a height and width to ``x``."""
        height, width = size
        return F.pad(tokens, (0, 0, width - 1, 0)).unflatten(1, (height + 1, width))

    @staticmethod
    def unpack(x: Tensor) -> Tensor:
        """Return the tokens of ``x``, without a copy."""
        return x.flatten(1, 2)[:, x.shape[2] - 1 :]


class ViTUnit(nn.Module):
    """A layer of a Vision Transformer, and the final norm after the last one.

    Args:
        layer: The layer, which takes tokens (N, L, C).
        layout: The layout of the trunk.
        norm: The final norm in the last unit, otherwise None.

    Shape:
        (N, H, W, C) to the same; with a class token see :class:`ClassToken`.
    """

    def __init__(self, layer: nn.Module, layout: Patches, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.layout = layout
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.layer(self.layout.unpack(x))
        if self.norm is not None:
            tokens = self.norm(tokens)
        return self.layout.pack(tokens, self.layout.to_map(x).shape[-2:])


class _Layers(LocalBackbone):
    """Makes a Vision Transformer local. Its units are its layers; the final norm belongs to the last one."""

    transformer = True

    # Set by the parent class.
    cls_token: nn.Parameter | None
    drop_after_pos: nn.Module
    final_norm: bool
    layers: ModuleList
    norm1: nn.Module
    patch_embed: BaseModule
    pos_embed: nn.Parameter

    @property
    def layout(self) -> Patches:
        """The layout with or without a class token."""
        raise TypeError(f'{type(self).__name__} must define layout')

    def stem_geometry(self) -> tuple[int, int]:
        raise TypeError(f'{type(self).__name__} must define stem_geometry()')

    def units(self) -> list[Unit]:
        last = len(self.layers) - 1
        return [
            Unit(
                (0, index),
                ViTUnit(layer, self.layout, self.norm1 if self.final_norm and index == last else None),
                *self.stem_geometry(),
                self.output_after(index, last=True),
            )
            for index, layer in enumerate(self.layers)
        ]


class LocalViTMixin(_Layers):
    """Makes a Vision Transformer local. Its units are its layers, ``(0, 0)``, ``(0, 1)``, ...

    Local heads see the map of its patches. Patch embedding, class token, position embedding and the norm before the
    layers are the stem.
    """

    # Set by the parent class.
    _pos_embeding: Callable[[Tensor, tuple[int, int], Tensor], Tensor]
    cls_token: nn.Parameter
    patch_size: int
    pre_ln: nn.Module
    pre_norm: bool
    with_cls_token: bool

    def __init__(self, *args: Any, output_cls_token: bool = False, out_origin: bool = False, **kwargs: Any) -> None:
        for key, value in (('output_cls_token', output_cls_token), ('out_origin', out_origin)):
            if value:
                raise ValueError(
                    f'model.backbone.{key}=True: a {type(self).__name__} returns only maps of its layers. Set '
                    f'{key}=False, or use the plain {self.plain.__name__}'
                )
        super().__init__(*args, **kwargs)

    @property
    def layout(self) -> Patches:
        """The layout with or without a class token."""
        return ClassToken() if self.with_cls_token else Patches()

    def stem_parts(self) -> 'list[nn.Module | nn.Parameter]':
        norm = [self.pre_ln] if self.pre_norm else []
        return [self.patch_embed, self.cls_token, self.pos_embed, self.drop_after_pos, *norm]

    def stem_geometry(self) -> tuple[int, int]:
        return self.pos_embed.shape[-1], self.patch_size

    def run_stem(self, images: Tensor) -> Tensor:
        x, size = self.patch_embed(images)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1)
        x = self._pos_embeding(x, size, self.pos_embed)
        if not self.with_cls_token:
            x = x[:, 1:]
        if self.pre_norm:
            x = self.pre_ln(x)
        return self.layout.pack(x, size)

    def output_map(self, stage: int, x: Tensor) -> Tensor:
        return self.layout.to_map(x).contiguous()


class LocalClassifierViTMixin(_Layers):
    """Makes MMPretrain's Vision Transformer local. Its units are its layers, ``(0, 0)``, ``(0, 1)``, ...

    Patch embedding, class token, position embedding and the norm before the layers are the stem; the final norm belongs
    to the last layer. Local heads see the map of the patches, or the class token (``auxiliary.class_token``).
    """

    # Set by the parent class.
    _format_output: Callable[[Tensor, Size], Tensor]
    embed_dims: int
    ln2: nn.Module
    out_type: str
    pre_norm: nn.Module

    @property
    def layout(self) -> Patches:
        """The layout with or without a class token."""
        return ClassToken() if self.cls_token is not None else Patches()

    def stages_before(self, cut: Cut) -> int:
        """Return the number of layers before a unit, since upstream's ``frozen_stages`` counts layers."""
        return cut[1]

    def stem_parts(self) -> 'list[nn.Module | nn.Parameter]':
        token = [] if self.cls_token is None else [self.cls_token]
        return [self.patch_embed, *token, self.pos_embed, self.drop_after_pos, self.pre_norm]

    def stem_geometry(self) -> tuple[int, int]:
        return self.embed_dims, self.patch_embed.projection.stride[0]

    def run_stem(self, images: Tensor) -> Tensor:
        x, size = self.patch_embed(images)
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1)
        x = x + resize_position_embedding(self, self.pos_embed, size)
        return self.layout.pack(self.pre_norm(self.drop_after_pos(x)), size)

    def output_modules(self, stage: int) -> list[nn.Module]:
        return [self.ln2] if self.out_type == 'avg_featmap' else []

    def output_map(self, stage: int, x: Tensor) -> Tensor:
        """Return the output in the format of ``out_type``."""
        return self._format_output(self.layout.unpack(x), self.layout.to_map(x).shape[-2:])


def resize_position_embedding(backbone: nn.Module, embedding: Tensor, size: 'Size | tuple[int, int]') -> Tensor:
    """Resize a position embedding of MMPretrain for a map of a height and width."""
    from mmpretrain.models.utils import resize_pos_embed  # the backbone's own package

    return resize_pos_embed(
        embedding, backbone.patch_resolution, size, backbone.interpolate_mode, backbone.num_extra_tokens
    )
