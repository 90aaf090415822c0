"""Auxiliary networks, which compute a local loss from a local block's output."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, ModuleList
from mmengine.registry import Registry
from torch import Tensor, nn

from ..arguments import refuse_unknown
from ..backbones.unit import Layout, Unit
from ..local import Cut
from ..local.branches import BRANCHES, Branches
from .copied import copied_units
from .reconstruction import ReconstructionHead
from .stride import check_strides, pooling_to

_DERIVED = ('end', 'following', 'layout', 'norm_cfg')
"""Arguments of an auxiliary network that a config cannot set."""


class AuxiliaryNetwork(BaseModule):
    """Branches, projection and heads: ``losses = head(projection(s * B(x) + (2 - s) * M(x)))``, x pooled first.

    One subclass per task derives the heads' arguments from the cut and calls their loss. The branches determine the
    method (see :class:`manpp_mm.local.Branches`): both with a learned scaling are MAN++ (arXiv 2507.16279), both with
    ``scaling=1`` are MAN (arXiv 2407.05623), none is DGL (ICML 2019). ``reconstruction`` adds InfoPro's term (ICLR
    2021).

    Args:
        end: The block's last unit, whose output the heads see if there are no branches.
        following: The units after it, some of which the branches copy.
        layout: The conversion of the trunk's ``x`` to a map (N, C, H, W) and back.
        norm_cfg: The backbone's norm config, the default for a segmentor's auxiliary heads.
        head: Config of the head, any registered module of the task's package with the task's ``loss``, or a list of
            heads, each with an optional ``weight`` (default 1). Channels, strides and anchors follow from the cut; set
            the rest (``num_classes``).
        branches, scaling, start, scaling_decays_to: See :class:`manpp_mm.local.Branches`.
        units: What each branch copies: this many units after the cut, fewer at the end of the trunk. Or the places
            ``[(stage, index), ...]`` of later units, each of which takes the output of the one before it, such as the
            first units of later stages, which are cheap because they downsample. (The authors copy one unit, in a ViT
            two; AugLocal's auxiliary networks consist of units sampled like this.) Places up to the cut are ignored; if
            none is left, the next unit is copied.
        stride: None, or the stride in pixels at which projection and head run. The block's output is average-pooled
            before the branches as far as their own stride does not already reach it. The cost falls with the square. A
            block whose head already runs at this stride or a coarser one is not pooled. (Specific to this project: the
            authors pool nothing.)
        pool_branches: Whether the branches also run at that stride. Otherwise their output is pooled, as DGL's head
            pools its input.
        projection: None, or arguments of mmcv's ``ConvModule`` between branches and head: ``out_channels``, and
            ``stride`` for a lighter head. By default a 1x1 convolution without norm and activation. A list gives layers
            in sequence.
        neck: None, or the config of a registered neck on one level instead of the projection: ``FPN`` with
            ``num_outs=3`` gives the heads levels at one, two and four times the stride. ``in_channels`` is derived.
        reconstruction: None, or arguments of :class:`ReconstructionHead`.
        loss_weight: Factor for all losses of this block.

    Raises:
        ValueError: A head is unknown, has no ``loss`` or lacks an argument, or keys exclude each other; the message
            names the config key.
    """

    registry: Registry
    """The registry of heads and necks."""

    def __init__(
        self,
        end: Unit,
        following: Sequence[Unit],
        layout: Layout,
        norm_cfg: Mapping | None,
        head: 'Mapping | Sequence[Mapping] | None' = None,
        branches: Sequence[str] = BRANCHES,
        scaling: 'str | float | None' = None,
        start: str = 'unit',
        scaling_decays_to: int = 1,
        units: 'int | Sequence[Cut]' = 1,
        stride: int | None = None,
        pool_branches: bool = True,
        projection: 'Mapping | Sequence[Mapping] | None' = None,
        neck: Mapping | None = None,
        reconstruction: Mapping | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not isinstance(loss_weight, (int, float)) or loss_weight <= 0:
            raise ValueError(f'auxiliary.loss_weight={loss_weight!r} must be a positive number')
        self.loss_weight = loss_weight
        try:
            copied = copied_units(end, following, units)
            self.branches = Branches([unit.module for unit in copied], branches, scaling, start, scaling_decays_to)
        except ValueError as error:
            raise ValueError(f'auxiliary.{error}') from None
        self.copied = [unit.cut for unit in copied]
        """Places of the units that the branches copy."""
        self.layout = layout
        seen = copied[-1] if branches else end
        in_channels, head_stride = seen.channels, seen.stride
        self.own_stride = head_stride
        """The stride at which projection and head would run without ``stride``."""
        self.pooling = pooling_to(stride, head_stride)
        """The pooling factor of the block's output in each dimension."""
        self.pool_branches = pool_branches
        head_stride *= self.pooling
        strides = [head_stride]
        self.projection: nn.Module = nn.Identity()
        self.neck: nn.Module | None = None
        if projection is not None and neck is not None:
            raise ValueError('auxiliary takes projection or neck, not both')
        if projection is not None:
            row = [projection] if isinstance(projection, Mapping) else projection
            layers = []
            for entry in row:
                layer, in_channels, head_stride = _build_projection(entry, in_channels, head_stride)
                layers.append(layer)
            self.projection = layers[0] if len(layers) == 1 else nn.Sequential(*layers)
            strides = [head_stride]
        if neck is not None:
            self.neck, in_channels, levels = self._build_neck(dict(neck), in_channels)
            strides = [head_stride * 2**level for level in range(levels)]
        heads = [head] if isinstance(head, Mapping) else list(head or [])
        if not heads or any('type' not in entry for entry in heads):
            raise ValueError('auxiliary needs head=dict(type=...), the head that computes the local loss')
        self.weights = [entry.get('weight', 1.0) for entry in heads]
        self.heads = ModuleList(
            self._build_head({k: v for k, v in entry.items() if k != 'weight'}, in_channels, strides, norm_cfg)
            for entry in heads
        )
        self.reconstruction: ReconstructionHead | None = None
        if reconstruction is not None:
            self.reconstruction = ReconstructionHead(end.channels, **reconstruction)

    @classmethod
    def for_cuts(
        cls,
        config: 'Mapping | Sequence[Mapping] | None',
        units: Sequence[Unit],
        cuts: Sequence[Cut],
        trained: Sequence[Cut],
        layout: Layout,
        norm_cfg: Mapping | None,
    ) -> list['AuxiliaryNetwork']:
        """Build a backbone's auxiliary networks, one for each cut.

        Args:
            config: ``model.backbone.auxiliary``.
            units: The backbone's units.
            cuts: Its cuts.
            trained: The units after which it could be cut.
            layout, norm_cfg: See :class:`AuxiliaryNetwork`.

        Raises:
            ValueError: ``config`` is missing or does not fit the cuts; see :class:`AuxiliaryNetwork` for the others.
        """
        if config is None:
            raise ValueError(
                f'a backbone with cuts after {list(cuts)} needs model.backbone.auxiliary=dict(head=dict(...)), the '
                'network that computes the local loss of each block'
            )
        entries = [config] * len(cuts) if isinstance(config, Mapping) else list(config)
        if len(entries) != len(cuts):
            raise ValueError(f'auxiliary has {len(entries)} entries for {len(cuts)} cuts {list(cuts)}')
        places = [unit.cut for unit in units]
        networks = []
        for cut, entry in zip(cuts, entries, strict=True):
            refuse_unknown(entry, cls, 'model.backbone.auxiliary', _DERIVED)
            end = places.index(cut)
            networks.append(cls(units[end], units[end + 1 :], layout, norm_cfg, **entry))
        finest = min(unit.stride for unit in units if unit.cut in trained)
        check_strides(config, [network.own_stride for network in networks], finest)
        return networks

    def _registered_class(self, key: str, config: Mapping) -> type:
        name = config.get('type')
        found = self.registry.get(name) if isinstance(name, str) else name
        if not inspect.isclass(found):
            raise ValueError(
                f'auxiliary.{key}.type={name!r} is not registered in {self.registry.scope}; use the name of a {key} of '
                f'that package, or add the module that registers yours to custom_imports'
            )
        return found

    def _build_neck(self, config: dict[str, Any], in_channels: int) -> tuple[nn.Module, int, int]:
        self._registered_class('neck', config)
        for key in ('out_channels', 'num_outs'):
            if not isinstance(config.get(key), int):
                raise ValueError(f'auxiliary.neck needs {key}, an integer')
        if 'in_channels' in config:
            raise ValueError(f'remove auxiliary.neck.in_channels: it follows from the cut ({in_channels} here)')
        built = self.registry.build(_unscoped(config) | dict(in_channels=[in_channels], _scope_=self.registry.scope))
        return built, config['out_channels'], config['num_outs']

    def _build_head(
        self, config: dict[str, Any], in_channels: int, strides: list[int], norm_cfg: Mapping | None
    ) -> BaseModule:
        head_type = self._registered_class('head', config)
        if not hasattr(head_type, 'loss'):
            raise ValueError(f'auxiliary.head.type={config["type"]!r} has no loss(), so it cannot compute a local loss')
        if 'in_channels' in config:
            raise ValueError(f'remove auxiliary.head.in_channels: it follows from the cut ({in_channels} here)')
        config['in_channels'] = in_channels
        self.complete_head(config, head_type, strides, norm_cfg)
        # Under another default scope, the head would not find its coders and losses.
        try:
            return self.registry.build(_unscoped(config) | {'_scope_': self.registry.scope})
        except (AssertionError, TypeError) as error:
            raise ValueError(
                f'auxiliary.head: {head_type.__name__} cannot be built from {sorted(config.keys() - {"type"})}: {error}'
            ) from error

    def complete_head(
        self, config: dict[str, Any], head_type: type, strides: list[int], norm_cfg: Mapping | None
    ) -> None:
        """Add the arguments of a head that follow from the cut.

        Args:
            config: The head's config with ``in_channels``, modified in place.
            head_type: Its class.
            strides: Stride in pixels of each level of the head's input.
            norm_cfg: The backbone's norm config.
        """
        raise TypeError(f'{type(self).__name__} must define complete_head()')

    def head_loss(self, head: BaseModule, levels: Sequence[Tensor], targets: Any, shared: dict) -> Mapping[str, Any]:
        """Return a head's loss dict.

        Args:
            head: The head.
            levels: Its input, (N, C, H, W) each.
            targets: The other argument of its ``loss``.
            shared: A dict in which the auxiliary networks of one step share values derived from the targets.
        """
        raise TypeError(f'{type(self).__name__} must define head_loss()')

    def forward(
        self, x: Tensor, targets: Any, images: Tensor | None = None, shared: 'dict | None' = None
    ) -> dict[str, Any]:
        """Return the local loss dict of a block's output.

        Args:
            x: The block's output in the trunk's layout.
            targets: The other argument of the heads' ``loss``.
            images: The backbone's input (N, 3, H, W), for the reconstruction.
            shared: See :meth:`head_loss`.

        Raises:
            RuntimeError: ``x`` is smaller than one pooling window of ``auxiliary.stride``.
        """
        shared = {} if shared is None else shared
        y = self.features(x)
        levels = (y,) if self.neck is None else self.neck((y,))
        losses: dict[str, Any] = {}
        for index, (head, weight) in enumerate(zip(self.heads, self.weights, strict=True)):
            prefix = f'head{index}.' if len(self.heads) > 1 else ''
            found = self.head_loss(head, levels, targets, shared)
            losses |= {prefix + name: _weighted(name, value, weight) for name, value in found.items()}
        if self.reconstruction is not None:
            losses['loss_reconstruction'] = self.reconstruction(self.layout.to_map(x), images)
        return {name: _weighted(name, value, self.loss_weight) for name, value in losses.items()}

    def features(self, x: Tensor) -> Tensor:
        """Return the input of heads or neck, (N, C, h, w), for a block's output in the trunk's layout."""
        return self.projection(self.layout.to_map(self.branched(x)))

    def branched(self, x: Tensor) -> Tensor:
        """Return the output of the branches, pooled before or after them, in the trunk's layout."""
        return self.branches(self._pooled(x)) if self.pool_branches else self._pooled(self.branches(x))

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pooling == 1:
            return x
        height, width = self.layout.to_map(x).shape[-2:]
        if min(height, width) < self.pooling:
            raise RuntimeError(
                f"auxiliary.stride pools {self.pooling} x {self.pooling} pixels of a block's output, which is "
                f'{height} x {width} here: use larger images or a finer stride'
            )
        return self.layout.pooled(x, self.pooling)

    def train_heads(self, mode: bool) -> None:
        """Set the mode of all parts except the branches, regardless of the backbone's ``norm_eval``."""
        for module in (self.projection, self.neck, self.heads, self.reconstruction):
            if module is not None:
                module.train(mode)


def _weighted(name: str, value: Any, weight: float) -> Any:
    if weight == 1 or 'loss' not in name:
        return value
    return [item * weight for item in value] if isinstance(value, Sequence) else value * weight


def _build_projection(config: Mapping, in_channels: int, stride: int) -> tuple[nn.Module, int, int]:
    if not isinstance(config, Mapping):
        raise ValueError(f'auxiliary.projection: {config!r} must be a dict(out_channels=...), or a list of them')
    config = _unscoped(dict(kernel_size=1, act_cfg=None) | dict(config))
    if 'out_channels' not in config:
        raise ValueError('auxiliary.projection needs out_channels, the number of input channels of the head')
    for key in ('out_channels', 'kernel_size', 'stride'):
        if not isinstance(config.get(key, 1), int):
            raise ValueError(f'auxiliary.projection.{key}={config[key]!r} must be an integer')
    config['padding'] = config.get('padding', config['kernel_size'] // 2)
    return ConvModule(in_channels, **config), config['out_channels'], stride * config.get('stride', 1)


def _unscoped(config: Mapping) -> dict[str, Any]:
    """Return a copy whose layer configs lack the ``_scope_`` of an ``mmseg::`` base, which mmcv's builders reject."""
    copied = dict(config)
    for key in ('norm_cfg', 'conv_cfg', 'act_cfg'):
        if isinstance(copied.get(key), Mapping):
            copied[key] = {name: value for name, value in copied[key].items() if name != '_scope_'}
    return copied
