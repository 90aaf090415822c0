"""Auxiliary networks of MMPretrain."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..arguments import constructor_parameters
from .network import AuxiliaryNetwork

if TYPE_CHECKING:
    from ..backbones.vit import ClassToken


class ClassificationAuxiliary(AuxiliaryNetwork):
    """An auxiliary network with a classification head of MMPretrain after a pooling neck.

    ``in_channels`` follows from the cut. ``StackedLinearClsHead`` after a projection of 1x1 convolutions is DGL's head
    (ICML 2019); after 3x3 convolutions, it is about InfoPro's (ICLR 2021).

    Args:
        args, kwargs: See :class:`AuxiliaryNetwork`.
        neck: Config of a neck that does not change the channels, (N, C, h, w) to (N, C).
        class_token: Whether the head sees the class token of a Vision Transformer, after a LayerNorm, instead of the
            pooled map.

    Raises:
        ValueError: The neck takes channels; or ``class_token`` is set with a backbone without one, with a projection or
            neck, or with a stride that would have no effect.
    """

    registry = MODELS

    def __init__(self, *args: Any, neck: 'Mapping | None' = None, class_token: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pool: nn.Module | None = None
        self.token_norm: nn.Module | None = None
        if class_token:
            self._check_class_token(neck)
            self.token_norm = nn.LayerNorm(self.in_channels)
        else:
            self.pool = self._built_pool(neck or dict(type='GlobalAveragePooling'))

    def _check_class_token(self, neck: 'Mapping | None') -> None:
        if not hasattr(self.layout, 'class_token'):
            raise ValueError('auxiliary.class_token=True: the backbone has no class token')
        if neck is not None or not isinstance(self.projection, nn.Identity):
            raise ValueError('auxiliary takes either class_token, or projection and neck')
        pools = self.pool_branches and self.branches.any
        if self.pooling > 1 and not pools:
            raise ValueError(
                'auxiliary.stride pools patches, but with class_token=True only branches use them: set stride=None'
            )

    def _built_pool(self, neck: Mapping) -> nn.Module:
        if not isinstance(neck, Mapping):
            raise ValueError(f'auxiliary.neck={neck!r} must be a dict(type=...)')
        found = constructor_parameters(self._registered_class('neck', neck))
        if taken := found & {'in_channels', 'in_features', 'input_features'}:
            raise ValueError(
                f'auxiliary.neck.type={neck["type"]!r} takes {taken.pop()}: use a pooling neck, which keeps the '
                'channels; projection changes them'
            )
        return self.registry.build(dict(neck) | dict(_scope_=self.registry.scope))

    def complete_head(
        self, config: dict[str, Any], head_type: type, strides: list[int], norm_cfg: Mapping | None
    ) -> None:
        self.in_channels = config['in_channels']
        if 'num_classes' in constructor_parameters(head_type) and 'num_classes' not in config:
            raise ValueError("auxiliary.head needs num_classes, the number of the data set's classes")

    def features(self, x: Tensor) -> Tensor:
        """Return the input of the heads: (N, C, h, w), or the class token (N, C)."""
        if self.token_norm is None:
            return super().features(x)
        return self.token_norm(cast('ClassToken', self.layout).class_token(self.branched(x)))

    def head_loss(
        self, head: BaseModule, levels: Sequence[Tensor], targets: Sequence, shared: dict
    ) -> Mapping[str, Any]:
        feats = tuple(levels) if self.pool is None else self.pool(tuple(levels))
        return head.loss(feats, targets)

    def train_heads(self, mode: bool) -> None:
        super().train_heads(mode)
        for module in (self.pool, self.token_norm):
            if module is not None:
                module.train(mode)
