"""The mixin that runs a backbone block by block."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from ..arguments import constructor_parameters, refuse_unknown
from ..local import BlockOutput, Cut, checkpointed, deliver_nothing, local_step, partition, rerun
from ..mode import EXACT, GRADIENTS, LOCAL
from ..step import Step
from .ownership import check_family, parameters_of
from .state import TrunkState
from .trunk import Block, Trunk
from .unit import STEM, check_geometry

if TYPE_CHECKING:
    from ..auxiliary.network import AuxiliaryNetwork


class LocalBackbone(TrunkState):
    """Mixin that trains a backbone made of units block by block.

    Put it before the backbone class: ``class LocalResNet(LocalResNetMixin, ResNet)``. The trunk keeps the parent's
    parameter names; all additions are under ``auxiliary.``. In evaluation mode, and wherever gradients are disabled,
    the parent's forward runs without auxiliary networks.

    In training, :func:`manpp_mm.local.local_step` runs each block but the last: it computes the block's gradients
    immediately and frees its graph. The block's outputs (to the next block and to a neck) are detached. The last block
    uses ordinary autograd. ``LocalLearningHook`` passes a :class:`manpp_mm.step.Step` to each training forward
    (:meth:`begin`) and takes it back (:meth:`end`).

    With ``gradient='exact'``, the same cuts serve end-to-end training: each block but the last is checkpointed and the
    task's gradient flows through all blocks. Gradients are those of the parent backbone, memory is about that of local
    training, and the extra time is one more forward of these blocks.

    A family of backbones is a subclass that defines :meth:`units`, :meth:`stem_parts` and :meth:`run_stem`, and, if
    they differ from ResNet's, ``layout``, :meth:`output_modules` and :meth:`output_map`.

    Args:
        local_blocks: K, the number of local blocks that train. Cuts are placed at stage ends if that gives K blocks;
            otherwise the units are divided evenly. Set either this or ``cuts``. ``'auto'``: cuts are planned from
            measured memory before the model is built (see :mod:`manpp_mm.memory.fit`).
        cuts: Explicit cuts ``[(stage, unit), ...]``, both counted from 0, each after that unit. Put ``(-1, 0)`` first
            for a cut after the stem.
        auxiliary: Arguments of the auxiliary networks (see :class:`AuxiliaryNetwork`): one dict for all of them or a
            list with one dict per cut.
        gradient: ``'local'``, or ``'exact'`` without auxiliary networks. ``GradientSwitchHook`` switches a local
            backbone to exact gradients for a stretch of the schedule.
        lateral_gradient: Whether the task trains the last unit of each stage whose map neck and heads take from a block
            before the last. Such a unit runs once more on its detached input, checkpointed; the local loss passes
            through it and trains the units before it. Without it, neck and heads train on maps that only local losses
            have shaped. Exact gradients ignore it: the task trains all units. (Specific to this project.)
        memory_budget: With ``local_blocks='auto'``, the size to plan for, such as ``'6GiB'``; None plans for about the
            lowest need.
        with_cp: Whether to checkpoint each unit, non-reentrant, even if the parent backbone has no such argument.
            Branches are not checkpointed, because their backward follows their forward immediately.
        args, kwargs: Arguments of the parent backbone.

    Raises:
        ValueError: Cuts or auxiliary networks do not fit the backbone; the message names the key.
    """

    auxiliary_type: ClassVar['type[AuxiliaryNetwork]']
    """The task's :class:`manpp_mm.auxiliary.AuxiliaryNetwork`."""

    plain: ClassVar[type[nn.Module]]
    """The end-to-end twin of a class: its first base that is not a local backbone, unless the class sets another."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not hasattr(cls, 'plain'):
            plain = [base for base in cls.__mro__ if issubclass(base, nn.Module) and not issubclass(base, Trunk)]
            if plain:
                cls.plain = plain[0]

    def __init__(
        self,
        *args: Any,
        local_blocks: int | Literal['auto'] | None = None,
        cuts: Sequence[Cut] | None = None,
        auxiliary: 'Mapping | Sequence[Mapping] | None' = None,
        gradient: str = LOCAL.backbone,
        lateral_gradient: bool = False,
        memory_budget: str | None = None,
        with_cp: bool = False,
        **kwargs: Any,
    ) -> None:
        _check_gradient(gradient)
        if local_blocks == 'auto' or memory_budget is not None:
            raise ValueError(
                f'local_blocks={local_blocks!r} with memory_budget={memory_budget!r} must be planned before the model '
                "is built: use this project's tools/train.py, or write a config with cuts by tools/fit.py CONFIG "
                "--write FILE. memory_budget needs local_blocks='auto' and cuts=None."
            )
        refuse_unknown(kwargs, type(self), 'model.backbone')
        if with_cp and 'with_cp' in constructor_parameters(self.plain):
            kwargs['with_cp'] = True
        super().__init__(*args, **kwargs)
        self.auxiliary = ModuleList()
        self.step: Step | None = None
        """The state of the current training forward, None outside of one."""
        self.share: range | None = None
        """The numbers of the blocks that this process trains, None for all."""
        self.received: BlockOutput | None = None
        """During a forward of the last blocks alone: the output of the blocks before ``share``."""
        self.train(self.training)  # some backbones freeze their stages here
        check_family(self, list(self.units()))
        self._stem_trains = _trains(self.stem_parts())
        self.stem_is_block = self._cut_after_stem(cuts)
        units = self.row()
        trains = [_trains([unit.module]) for unit in units]
        trains[0] = trains[0] or self._stem_trains
        per_stage = [sum(unit.cut[0] == stage for unit in units) for stage in range(units[-1].cut[0] + 1)]
        stem = [STEM] if self.stem_is_block else []
        self.cuts = partition(per_stage, trains, local_blocks, cuts, before=stem)
        self._idle_units = trains.index(True)
        self.trained_units = [unit.cut for unit in units[self._idle_units :]]
        """Units ``(stage, index)``, starting with the first that trains; cuts can follow all but the last."""
        # Units would use reentrant checkpointing, which torch.autograd.grad does not support.
        reentrant: list[BaseModule] = [
            m for unit in units for m in unit.module.modules() if getattr(m, 'with_cp', False)
        ]
        self.units_checkpointed = with_cp or bool(reentrant)
        for module in reentrant:
            module.with_cp = False
        self.lateral_gradient = lateral_gradient
        self.gradient = gradient
        """The current kind of gradient, ``'local'`` or ``'exact'``."""
        if gradient == LOCAL.backbone and self.cuts:
            networks = self.auxiliary_type.for_cuts(
                auxiliary, units, self.cuts, self.trained_units, self.layout, self.head_norm_cfg()
            )
            self.auxiliary = ModuleList(networks)
        self.train(self.training)

    # Construction.

    def _cut_after_stem(self, cuts: Sequence[Cut] | None) -> bool:
        if not cuts or not isinstance(cuts[0], Sequence) or tuple(cuts[0]) != STEM:
            return False
        if self.stem_geometry() is None:
            raise ValueError(f'cuts={list(cuts)}: the stem of a {type(self).__name__} cannot be a block of its own')
        if not self._stem_trains:
            raise ValueError(f'cuts={list(cuts)}: the stem is frozen (frozen_stages), cut later')
        return True

    def init_weights(self) -> None:
        """Initialize trunk and auxiliary networks; some backbones initialize only themselves."""
        super().init_weights()
        if len(self.auxiliary) and not self.auxiliary.is_init:
            self.auxiliary.init_weights()

    def train(self, mode: bool = True) -> 'LocalBackbone':
        """Set the mode. ``norm_eval`` applies to trunk and branches; later modules stay in training mode."""
        super().train(mode)
        for network in self.auxiliary:
            network.train_heads(mode)
        self.forget_blocks()
        return self

    # The training step.

    def switch_gradient(self, gradient: str) -> None:
        """Switch to local or exact gradients.

        Args:
            gradient: ``'local'`` or ``'exact'``.

        Raises:
            ValueError: The value is unknown, or the backbone was built without auxiliary networks for local gradients.
        """
        _check_gradient(gradient)
        if gradient == LOCAL.backbone and self.cuts and not len(self.auxiliary):
            raise ValueError(
                "model.backbone.gradient='exact' builds no auxiliary networks: set gradient='local' to switch between "
                'the two (GradientSwitchHook)'
            )
        self.gradient = gradient

    @property
    def exact(self) -> bool:
        """Whether the task's gradient currently flows through all blocks and auxiliary networks are idle."""
        return self.gradient == EXACT.backbone

    def begin(self, step: Step) -> None:
        """Start a training forward; the step of an aborted one is dropped."""
        self.step = step

    def end(self) -> None:
        """End a training forward, even if it was interrupted."""
        self.step = None

    def idle_delivery(self) -> Tensor | None:
        """Return a zero that includes idle auxiliary networks in backward during exact gradients, otherwise None."""
        idle = [p for p in self.auxiliary.parameters() if p.requires_grad]
        return deliver_nothing(idle) if self.exact and idle else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Run the backbone.

        Args:
            x: Images (N, 3, H, W).

        Returns:
            The feature maps at ``out_indices``. In block-local training, those of all blocks but the last are
            detached, with ``lateral_gradient`` before the last unit of their stage.

        Raises:
            RuntimeError: There are no targets (``LocalLearningHook`` is missing), or this is the second call in one
                forward.
        """
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x)
        if self.exact:
            return self._exact_forward(x)
        features = self._local_forward(x)
        return tuple(self.output_map(stage, found) for stage, found in features.items())

    def _local_forward(self, images: Tensor) -> dict[int, Tensor]:
        """Train each block but the last immediately; return the stages' maps in the units' layout."""
        *local, last = range(len(self.blocks()))
        output = BlockOutput(images, {}) if self.received is None else self.received
        if local:
            step = self._own_step()
            mine = local if self.share is None else [index for index in local if index in self.share]
            output = self.train_blocks(mine, output, images, step)
            step.start_block(last)
        return output.features | self.run_block(self.blocks()[last], output.x, first=not local).features

    def train_blocks(self, numbers: Sequence[int], given: BlockOutput, images: Tensor, step: Step) -> BlockOutput:
        """Train consecutive local blocks, none of which is the last, immediately.

        Args:
            numbers: Their numbers.
            given: The output of the block before them; the images and no maps for the first one.
            images: The backbone's input (N, 3, H, W).
            step: Receives losses and gradients.

        Returns:
            The output of the last of them, with the stages' maps up to there in the units' layout.
        """
        x, features = given.x, dict(given.features)
        for index in numbers:
            step.start_block(index)
            block = self.blocks()[index]
            inputs: dict[int, Tensor] = {}
            result = local_step(
                partial(self.run_block, block, first=index == 0, inputs=inputs if block.laterals else None),
                partial(self._local_loss, block, self.auxiliary[index], step, images),
                x,
                block.local_parameters,
                step.scale,
            )
            features |= result.output.features
            features |= {stage: rerun(unit, inputs[stage]) for stage, unit in block.laterals.items()}
            _forget_casts(x)
            x = result.output.x
            step.add(index, result)
        step.shared.clear()  # free it before neck and heads run
        return BlockOutput(x, features)

    def _local_loss(self, block: Block, network: nn.Module, step: Step, images: Tensor, x: Tensor) -> Mapping[str, Any]:
        if not block.checked:
            check_geometry(block.units[-1], self.layout.to_map(x), images)
            block.checked = True
        return network(x, step.targets, images, step.shared)

    def _own_step(self) -> Step:
        if self.step is None or self.step.targets is None:
            raise RuntimeError(
                f'{type(self).__name__} trains block by block and has no targets. Add '
                "custom_hooks=[dict(type='LocalLearningHook'), dict(type='MomentumHook')] to the config (a "
                "custom_hooks list of your own replaces an inherited one) and call the model in mode='loss'; "
                'outside of training use model.eval() or torch.no_grad().'
            )
        if self.step.ran:
            raise RuntimeError(
                f'{type(self).__name__} was called twice in one forward of the model, but its local gradients '
                'belong to one call. This model cannot be trained block by block.'
            )
        self.step.ran = True
        return self.step

    def _exact_forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Checkpoint each block but the last; frozen parts before the first unit that trains are not recomputed."""
        features: dict[int, Tensor] = {}
        blocks = self.blocks()
        runs = [partial(self.run_block, block, first=index == 0) for index, block in enumerate(blocks)]
        if not self._stem_trains:
            units = blocks[0].units
            idle = self.run_units(units[: self._idle_units], self.run_stem(x))
            x, features = idle.x, {stage: self.output_map(stage, found) for stage, found in idle.features.items()}
            runs[0] = partial(self.run_units, units[self._idle_units :])
        for block, run in zip(blocks[:-1], runs[:-1], strict=True):
            outputs = [m for unit in block.units if unit.output is not None for m in self.output_modules(unit.output)]
            output = checkpointed(self._mapped, run, x, modules=[*block.modules, *outputs])
            _forget_casts(x)
            x = output.x
            features |= output.features
        return tuple((features | self._mapped(runs[-1], x).features).values())

    def _mapped(self, run: Any, x: Tensor) -> BlockOutput:
        """Return a block's output with maps in the form for neck and heads."""
        output = run(x)
        return BlockOutput(output.x, {s: self.output_map(s, found) for s, found in output.features.items()})


def _check_gradient(gradient: str) -> None:
    if gradient not in GRADIENTS:
        raise ValueError(f'gradient={gradient!r} must be {" or ".join(map(repr, GRADIENTS))}')


def _trains(parts: 'Sequence[nn.Module | nn.Parameter]') -> bool:
    return any(p.requires_grad for p in parameters_of(parts))


def _forget_casts(x: Tensor) -> None:
    """Free the half-precision copies of a block's weights, which autocast keeps until the end of the forward."""
    if torch.is_autocast_enabled(x.device.type):
        torch.clear_autocast_cache()
