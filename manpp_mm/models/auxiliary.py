"""Auxiliary networks: what turns a local block's output into a local loss."""

import inspect
from collections.abc import Mapping
from typing import Any

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmengine.registry import Registry
from torch import Tensor, nn

from ..local import Branches


class AuxiliaryNetwork(BaseModule):
    """Branches, projection and head: ``losses = head(projection(s * B(x) + (2 - s) * M(x)))``.

    One class for each task derives the head's arguments from the cut and calls its loss. Source of the structure:
    MAN++, arXiv 2507.16279.

    Args:
        unit: The first unit of the next local block, which the branches copy.
        in_channels: Channels of that unit's output.
        stride: Stride of that unit's output in pixels.
        norm_cfg: The backbone's norm config, the default of a segmentor's auxiliary heads.
        head: Config of the head, any registered module of the task's package with the task's ``loss``. Channels,
            strides and anchors follow from the cut; give the rest (``num_classes``).
        projection: None, or arguments of mmcv's ``ConvModule`` between branches and head: ``out_channels``, and, for a
            lighter head, ``stride``. A 1x1 convolution without norm and activation unless they are given.
        with_cp: Whether to checkpoint each branch.

    Raises:
        ValueError: The head is unknown, has no ``loss`` or lacks an argument; the message names the config key.
    """

    registry: Registry
    """Where heads come from."""

    def __init__(
        self,
        unit: nn.Module,
        in_channels: int,
        stride: int,
        norm_cfg: Mapping | None,
        head: Mapping | None = None,
        projection: Mapping | None = None,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.branches = Branches(unit, with_cp=with_cp)
        self.projection = nn.Identity()
        if projection is not None:
            projection = _unscoped(dict(kernel_size=1, act_cfg=None) | dict(projection))
            if 'out_channels' not in projection:
                raise ValueError('auxiliary.projection needs out_channels, the number of channels that the head sees')
            projection['padding'] = projection.get('padding', projection['kernel_size'] // 2)
            if not isinstance(projection.get('stride', 1), int):
                raise ValueError(f'auxiliary.projection.stride={projection["stride"]!r} must be one integer')
            stride *= projection.get('stride', 1)
            self.projection = ConvModule(in_channels, **projection)
            in_channels = projection['out_channels']
        if head is None or 'type' not in head:
            raise ValueError('auxiliary needs head=dict(type=...), the head that computes the local loss')
        self.head = self._build_head(dict(head), in_channels, stride, norm_cfg)

    def _build_head(self, config: dict[str, Any], in_channels: int, stride: int, norm_cfg: Mapping | None) -> nn.Module:
        name = config.get('type')
        head_type = self.registry.get(name) if isinstance(name, str) else name
        if not inspect.isclass(head_type):
            raise ValueError(
                f'auxiliary.head.type={name!r} is not registered in {self.registry.scope}; use the name of a head of '
                f'that package, or add the module that registers yours to custom_imports'
            )
        if not hasattr(head_type, 'loss'):
            raise ValueError(f'auxiliary.head.type={name!r} has no loss() and cannot give a local loss')
        if 'in_channels' in config:
            raise ValueError(f'remove auxiliary.head.in_channels: it follows from the cut ({in_channels} here)')
        config['in_channels'] = in_channels
        self.complete_head(config, head_type, stride, norm_cfg)
        # Under another default scope the head would not find its own coders and losses.
        return self.registry.build(_unscoped(config) | {'_scope_': self.registry.scope})

    def complete_head(self, config: dict[str, Any], head_type: type, stride: int, norm_cfg: Mapping | None) -> None:
        """Fill in what follows from the cut.

        Args:
            config: The head's config with ``in_channels``, changed in place.
            head_type: Its class.
            stride: Stride of the head's input in pixels.
            norm_cfg: The backbone's norm config.
        """
        raise TypeError(f'{type(self).__name__} must define complete_head()')

    def head_loss(self, y: Tensor, targets: Any) -> Mapping[str, Any]:
        """Return the head's loss dict on its input ``y`` (N, C, H, W)."""
        raise TypeError(f'{type(self).__name__} must define head_loss()')

    def forward(self, x: Tensor, targets: Any) -> Mapping[str, Any]:
        """Return the local loss dict of a block's output.

        Args:
            x: (N, C, H, W).
            targets: What the head's ``loss`` takes beside the features.
        """
        return self.head_loss(self.projection(self.branches(x)), targets)

    def train_head(self, mode: bool) -> None:
        """Set the mode of projection and head alone; a backbone's ``norm_eval`` is not meant for them."""
        self.projection.train(mode)
        self.head.train(mode)


def _unscoped(config: Mapping) -> dict[str, Any]:
    """A copy whose layer configs lack the ``_scope_`` of an ``mmseg::`` base, which mmcv's builders do not know."""
    copied = dict(config)
    for key in ('norm_cfg', 'conv_cfg', 'act_cfg'):
        if isinstance(copied.get(key), Mapping):
            copied[key] = {name: value for name, value in copied[key].items() if name != '_scope_'}
    return copied


def constructor_parameters(cls: type) -> set[str]:
    """Names of the arguments that a class's constructor takes, those handed to its parents by ``**kwargs`` too."""
    names: set[str] = set()
    for parent in cls.__mro__:
        if '__init__' not in vars(parent):
            continue
        parameters = inspect.signature(parent.__init__).parameters
        names |= set(parameters)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return names
