"""The mixin that runs a backbone block by block."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import ModuleList, is_model_wrapper
from torch import Tensor, nn

from ..local import LocalGradients, checkpointed, deliver, deliver_nothing, local_step, partition
from .auxiliary import AuxiliaryNetwork, refuse_unknown

GRADIENTS = ('local', 'exact')
_DERIVED = ('unit', 'block_geometry', 'unit_geometry', 'norm_cfg')


class LocalBackbone:
    """Mixin that trains a backbone made of stages of units block by block.

    Put it before the backbone class: ``class LocalResNet(LocalResNetMixin, ResNet)``. The trunk keeps the parent's
    parameter names; everything that is added lives under ``auxiliary.``. In evaluation, and wherever gradients are
    off, the parent's forward runs and no auxiliary network does.

    In training each block but the last is run by :func:`manpp_mm.local.local_step`: its gradients are taken at once
    and its graph is freed. Its outputs (to the next block and to a neck) are detached. The last block is ordinary
    autograd. ``LocalLearningHook`` opens each training forward with :meth:`begin_local_step` and fetches block losses
    and delivery with :meth:`end_local_step`.

    With ``gradient='exact'`` the same cuts serve end-to-end training: each block but the last is checkpointed and the
    task's gradient flows through all of them. Gradients are the parent backbone's, memory is about that of local
    training, time is a forward of those blocks more.

    Args:
        local_blocks: K, the number of local blocks that train: at stage ends where K fits them, otherwise the units
            are divided evenly. Set this or ``cuts``. ``'auto'``: cuts are planned from measured memory before the model
            is built (see :mod:`manpp_mm.profiling.plan`).
        cuts: Explicit cuts ``[(stage, unit), ...]``, both from 0, each after that unit.
        auxiliary: Arguments of the auxiliary networks (see :class:`AuxiliaryNetwork`): one dict for all of them or a
            list of one dict a cut.
        gradient: ``'local'``, or ``'exact'``; then there are no auxiliary networks. ``GradientSwitchHook`` switches a
            local backbone to exact gradients for a stretch of the schedule.
        memory_budget: With ``local_blocks='auto'`` the size to plan for, ``'6GiB'`` say; None: about the lowest peak.
        args, kwargs: The parent backbone's. ``with_cp=True`` checkpoints each unit, non-reentrant; not the
            branches, whose backward follows their forward at once.

    Raises:
        ValueError: For cuts or an auxiliary network that do not fit the backbone; the message names the key.
    """

    auxiliary_type: type[AuxiliaryNetwork]
    """The auxiliary network of this task."""

    def __init__(
        self,
        *args: Any,
        local_blocks: 'int | str | None' = None,
        cuts: Sequence[tuple[int, int]] | None = None,
        auxiliary: 'Mapping | Sequence[Mapping] | None' = None,
        gradient: str = 'local',
        memory_budget: str | None = None,
        **kwargs: Any,
    ) -> None:
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient={gradient!r} must be 'local' or 'exact'")
        if local_blocks == 'auto' or memory_budget is not None:
            raise ValueError(
                f'local_blocks={local_blocks!r} with memory_budget={memory_budget!r} is planned before the model is '
                "built, by this project's tools/train.py; elsewhere run tools/plan_cuts.py CONFIG and write its cuts "
                "into the config. memory_budget goes with local_blocks='auto' and cuts=None."
            )
        refuse_unknown(kwargs, type(self), 'model.backbone')
        super().__init__(*args, **kwargs)
        stages = self.stages()
        units = [(s, u) for s, stage in enumerate(stages) for u in range(len(stage))]
        trains = [_trains(stages[s][u]) for s, u in units]
        stem_trains = any(_trains(module) for module in self.stem_modules())
        self._idle_units = 0 if stem_trains or True not in trains else trains.index(True)
        self._stem_trains = stem_trains
        trains[0] = trains[0] or stem_trains
        self.cuts = partition([len(stage) for stage in stages], trains, local_blocks, cuts)
        starts = [0, *(units.index(cut) + 1 for cut in self.cuts)]
        self.block_units = [units[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
        """The units ``(stage, unit)`` of each local block."""
        self.trained_units = units[trains.index(True) :]
        """The units ``(stage, unit)`` from the first that trains on: each but the last may be cut after."""
        if self.with_cp:
            # Units checkpoint themselves with reentrance, which torch.autograd.grad cannot enter.
            for stage in stages:
                for unit in stage:
                    unit.with_cp = False
        self.gradient = gradient
        """How the backbone trains now, ``'local'`` or ``'exact'``."""
        self.auxiliary = ModuleList([] if gradient == 'exact' else self._build_auxiliary(auxiliary))
        self._auxiliary_ready = False
        self._absent_keys: set[str] = set()
        self.register_load_state_dict_post_hook(_forgive_absent_auxiliary)
        self.drop_step()
        self.train(self.training)

    # What a family of backbones tells about itself.

    def stages(self) -> list[nn.Sequential]:
        """The stages, each a sequence of units."""
        raise TypeError(f'{type(self).__name__} must define stages()')

    def stem_modules(self) -> list[nn.Module]:
        """The modules before the first stage."""
        raise TypeError(f'{type(self).__name__} must define stem_modules()')

    def run_stem(self, x: Tensor) -> Tensor:
        """Run what comes before the first stage on an image batch (N, 3, H, W)."""
        raise TypeError(f'{type(self).__name__} must define run_stem()')

    def stage_geometry(self, stage: int) -> tuple[int, int]:
        """Channels of a stage's output and its stride in pixels."""
        raise TypeError(f'{type(self).__name__} must define stage_geometry()')

    # Construction.

    def _build_auxiliary(self, config: 'Mapping | Sequence[Mapping] | None') -> list[AuxiliaryNetwork]:
        if not self.cuts:
            return []
        if config is None:
            raise ValueError(
                f'{type(self).__name__} is cut after {self.cuts} and needs auxiliary=dict(head=dict(...)), the '
                'network that gives each block its local loss'
            )
        configs = [config] * len(self.cuts) if isinstance(config, Mapping) else list(config)
        if len(configs) != len(self.cuts):
            raise ValueError(f'auxiliary holds {len(configs)} entries for {len(self.cuts)} cuts {self.cuts}')
        networks = []
        for block, entry in enumerate(configs):
            stage, unit = self.block_units[block + 1][0]
            refuse_unknown(entry, self.auxiliary_type, 'model.backbone.auxiliary', _DERIVED)
            networks.append(
                self.auxiliary_type(
                    self.stages()[stage][unit],
                    block_geometry=self.stage_geometry(self.block_units[block][-1][0]),
                    unit_geometry=self.stage_geometry(stage),
                    norm_cfg=self.norm_cfg,
                    **entry,
                )
            )
        finest = min(self.stage_geometry(stage)[1] for stage, _ in self.trained_units)
        _check_strides(config, [network.own_stride for network in networks], finest)
        return networks

    def train(self, mode: bool = True) -> 'LocalBackbone':
        """Set the mode. ``norm_eval`` holds for trunk and branches; what follows them keeps training mode."""
        super().train(mode)
        for network in self.auxiliary:
            network.train_heads(mode)
        self._parameters_of_block: dict[int, list[nn.Parameter]] = {}  # looked up anew once an epoch, not every step
        return self

    # Weights.

    @property
    def next_units(self) -> list[nn.Module]:
        """For each auxiliary network the first unit of the next local block, which its branches copy."""
        stages = self.stages()
        return [stages[s][u] for (s, u), *_ in self.block_units[1 : len(self.auxiliary) + 1]]

    def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """(momentum branch, the unit that it follows) of each auxiliary network that has one."""
        pairs = [(a.branches.momentum, unit) for a, unit in zip(self.auxiliary, self.next_units, strict=True)]
        return [(branch, unit) for branch, unit in pairs if branch is not None]

    def sync_auxiliary(self) -> bool:
        """Copy the trunk's units into the branches, once, unless a checkpoint brought the branches' own weights.

        Returns:
            Whether the branches were copied now.
        """
        if self._auxiliary_ready or not len(self.auxiliary):
            return False
        for network, unit in zip(self.auxiliary, self.next_units, strict=True):
            network.branches.sync(unit)
        self._auxiliary_ready = True
        return True

    def _load_from_state_dict(self, state_dict: Mapping, prefix: str, *args: Any) -> None:
        prefix_auxiliary = f'{prefix}auxiliary.'
        own = {prefix_auxiliary + name: value.shape for name, value in self.auxiliary.state_dict().items()}
        found = {name: value.shape for name, value in state_dict.items() if name.startswith(prefix_auxiliary)}
        if found and self.cuts and not len(self.auxiliary):
            # state_dict is a copy: load_state_dict makes one, and one for each child.
            for name in found:
                del state_dict[name]
            print_log(
                f'The auxiliary networks in the checkpoint ({len(found)} entries under {prefix_auxiliary!r}) are left '
                "aside: gradient='exact' has none.",
                logger='current',
            )
            found = {}
        # Other shapes in projections and heads (other classes) are reported as anywhere in a model; what the branches
        # and cuts are is another matter.
        differing = sorted(
            name
            for name in {**own, **found}
            if name not in own or name not in found or ('.branches.' in name and own[name] != found[name])
        )
        if found and differing:
            raise RuntimeError(
                f'the checkpoint was trained with other cuts or another auxiliary network: {len(differing)} of its '
                f'entries under {prefix_auxiliary!r} differ from this config ({", ".join(differing[:3])}, ...). Use '
                f'the cuts and auxiliary of its own config, or remove the entries under {prefix_auxiliary!r} to start '
                'the auxiliary networks from the trunk.'
            )
        self._absent_keys = set() if found else set(own)
        self._auxiliary_ready = bool(found)
        self._parameters_of_block.clear()
        super()._load_from_state_dict(state_dict, prefix, *args)

    # The training step.

    def switch_gradient(self, gradient: str) -> None:
        """Train by local or by exact gradients from now on.

        Args:
            gradient: ``'local'`` or ``'exact'``.

        Raises:
            ValueError: Another value, or local gradients of a backbone that was built without auxiliary networks.
        """
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient={gradient!r} must be 'local' or 'exact'")
        if gradient == 'local' and self.cuts and not len(self.auxiliary):
            raise ValueError(
                "model.backbone.gradient='exact' builds no auxiliary networks: set gradient='local' to switch between "
                'the two (GradientSwitchHook)'
            )
        self.gradient = gradient

    def drop_step(self) -> None:
        """Drop what the current forward, or one that never ended, keeps: targets, losses and gradients."""
        self._targets: Any = None
        self._shared: dict[Any, Any] = {}
        self._scale: float | Tensor = 1.0
        self._image_statistics: tuple[Tensor, Tensor] | None = None
        self._losses: dict[str, Tensor] = {}
        self._gradients: list[LocalGradients] = []
        self.local_step_ran = False

    def begin_local_step(
        self, targets: Any, scale: 'float | Tensor' = 1.0, image_statistics: 'tuple[Tensor, Tensor] | None' = None
    ) -> None:
        """Open one training forward; what a forward that never ended left behind is dropped.

        Args:
            targets: The batch's targets as the auxiliary heads' ``loss`` takes them (a list of data samples).
            scale: The loss scaler's factor, 1 without one.
            image_statistics: Mean and standard deviation (3, 1, 1) by which images of 0 to 255 were normalised, for a
                reconstruction.
        """
        self.drop_step()
        self._image_statistics = image_statistics
        self._targets = targets
        self._scale = scale

    def end_local_step(self) -> dict[str, Tensor]:
        """Close one training forward.

        Returns:
            Block losses under ``block0.loss_cls`` and so on, detached, but for one that carries the delivery of the
            local gradients. Empty if no block was trained locally.
        """
        losses, gradients = self._losses, self._gradients
        self.drop_step()
        if gradients:
            carrier = next(name for name in losses if 'loss' in name)
            losses[carrier] = losses[carrier] + deliver(gradients)
        return losses

    def idle_delivery(self) -> Tensor | None:
        """While exact gradients flow, a zero through which the idle auxiliary networks take part in backward."""
        idle = [p for p in self.auxiliary.parameters() if p.requires_grad]
        return deliver_nothing(idle) if self.gradient == 'exact' and idle else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Run the backbone.

        Args:
            x: Images (N, 3, H, W).

        Returns:
            The feature maps at ``out_indices``. In block-local training those of all blocks but the last are
            detached.

        Raises:
            RuntimeError: Training without targets (``LocalLearningHook`` is missing), or a second call in one forward.
        """
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x)
        if self.gradient == 'exact':
            return self._exact_forward(x)
        if len(self.auxiliary):
            if self._targets is None:
                raise RuntimeError(
                    f'{type(self).__name__} trains block by block and has no targets. Add '
                    "custom_hooks=[dict(type='LocalLearningHook'), dict(type='MomentumHook')] to the config (a "
                    "custom_hooks list of your own replaces an inherited one) and call the model in mode='loss'; "
                    'outside of training use model.eval() or torch.no_grad().'
                )
            if self.local_step_ran:
                raise RuntimeError(
                    f'{type(self).__name__} was called twice in one forward of the model; its local gradients belong '
                    'to one call. This model cannot be trained block by block.'
                )
            self.local_step_ran = True
        features: list[Tensor] = []
        images = self._images(x)
        for block, network in enumerate(self.auxiliary):
            step = local_step(
                lambda inputs, block=block: self._run_block(block, inputs),
                lambda output, network=network: network(output, self._targets, images, self._shared),
                x,
                self._block_parameters(block),
                self._scale,
            )
            _forget_casts(x)
            *outs, x = step.outputs
            features += outs
            self._losses.update({f'block{block}.{name}': value for name, value in step.losses.items()})
            self._gradients.append(step.gradients)
        self._shared.clear()  # nothing of it is alive while neck and heads run
        *outs, _ = self._run_block(len(self.auxiliary), x)
        return tuple(features + outs)

    def _exact_forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Checkpoint each block but the last; what is frozen before the first unit that trains is not run again."""
        features: list[Tensor] = []
        runs = [partial(self._run_block, block) for block in range(len(self.block_units))]
        if not self._stem_trains:
            units = self.block_units[0]
            *features, x = self._run_units(units[: self._idle_units], self.run_stem(x))
            runs[0] = partial(self._run_units, units[self._idle_units :])
        for block, run in enumerate(runs[:-1]):
            *outs, x = checkpointed(run, x, modules=self.block_modules(block))
            _forget_casts(x)
            features += outs
        *outs, _ = runs[-1](x)
        return (*features, *outs)

    def _images(self, x: Tensor) -> Tensor | None:
        """The images in [0, 1], if an auxiliary network reconstructs them."""
        if all(network.reconstruction is None for network in self.auxiliary):
            return None
        if self._image_statistics is None:
            raise RuntimeError(
                'auxiliary.reconstruction needs the images as they were before normalisation: '
                'model.data_preprocessor has no mean and std'
            )
        mean, std = self._image_statistics
        return ((x * std + mean) / 255).clamp(0, 1)

    def _run_block(self, block: int, x: Tensor) -> tuple[Tensor, ...]:
        """Run one block; returns the feature maps at ``out_indices`` inside it and then its output."""
        return self._run_units(self.block_units[block], self.run_stem(x) if block == 0 else x)

    def _run_units(self, units: Sequence[tuple[int, int]], x: Tensor) -> tuple[Tensor, ...]:
        stages = self.stages()
        outs = []
        for stage, unit in units:
            x = checkpointed(stages[stage][unit], x) if self.with_cp else stages[stage][unit](x)
            if unit == len(stages[stage]) - 1 and stage in self.out_indices:
                outs.append(x)
        return *outs, x

    def block_modules(self, block: int) -> list[nn.Module]:
        """The modules of one local block, the stem among the first one's."""
        stages = self.stages()
        modules = [stages[s][u] for s, u in self.block_units[block]]
        return [*self.stem_modules(), *modules] if block == 0 else modules

    def _block_parameters(self, block: int) -> list[nn.Parameter]:
        if block not in self._parameters_of_block:
            modules = [*self.block_modules(block), self.auxiliary[block]]
            self._parameters_of_block[block] = [p for module in modules for p in module.parameters()]
        return self._parameters_of_block[block]


class LocalResNetMixin(LocalBackbone):
    """What MMDetection's and MMSegmentation's ResNets share."""

    def stages(self) -> list[nn.Sequential]:
        return [getattr(self, name) for name in self.res_layers]

    def stem_modules(self) -> list[nn.Module]:
        return [self.stem] if self.deep_stem else [self.conv1, self.norm1]

    def run_stem(self, x: Tensor) -> Tensor:
        x = self.stem(x) if self.deep_stem else self.relu(self.norm1(self.conv1(x)))
        return self.maxpool(x)

    def stage_geometry(self, stage: int) -> tuple[int, int]:
        return self.base_channels * 2**stage * self.block.expansion, 4 * prod(self.strides[: stage + 1])


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside a wrapper (DDP), or the model itself."""
    return model.module if is_model_wrapper(model) else model


def find_local_backbone(model: nn.Module) -> LocalBackbone:
    """Return ``model.backbone``, the one local backbone of a detector or segmentor without wrapper.

    Raises:
        ValueError: There is none, or it sits where the model's own forward does not pass the batch's targets by it
            (a semi-supervised teacher and student, say).
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, LocalBackbone)}
    if not found:
        raise ValueError(
            f'{type(model).__name__} has no local backbone, but LocalLearningHook or MomentumHook is in custom_hooks. '
            "Set model.backbone.type='LocalResNet' (with local_blocks and auxiliary), or remove the hooks."
        )
    if list(found) != ['backbone']:
        raise ValueError(
            f'{type(model).__name__} holds its local backbone as {", ".join(map(repr, found))} and calls the wrapped '
            "models' losses itself, past the forward that hands over the targets: it cannot be trained block by "
            "block. Use the plain backbone (type='ResNet') inside it."
        )
    return found['backbone']


def _forget_casts(x: Tensor) -> None:
    """Let go of the half-precision copies of a block's weights, which autocast keeps to the end of the forward."""
    if torch.is_autocast_enabled(x.device.type):
        torch.clear_autocast_cache()


def _check_strides(config: 'Mapping | Sequence[Mapping]', own: Sequence[int], finest: int) -> None:
    """A stride of ``auxiliary`` that is finer than its heads' own would do nothing.

    Args:
        config: ``auxiliary``; one dict for all cuts may be too fine for the cuts at hand, which may be planned.
        own: At which stride each head would run without it.
        finest: At which stride a head could run anywhere in the backbone.
    """
    if isinstance(config, Mapping):
        entries = [(config, finest, 'any block')]
    else:
        entries = [(entry, own[block], f'block {block}') for block, entry in enumerate(config)]
    for entry, stride, which in entries:
        wanted = entry.get('stride')
        if wanted is not None and wanted < stride:
            raise ValueError(
                f'auxiliary.stride={wanted} is finer than the {stride} pixels at which the head of {which} runs '
                f'anyway, and would pool nothing: set it to {stride} or coarser, or to None'
            )


def _trains(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


def _forgive_absent_auxiliary(backbone: LocalBackbone, incompatible_keys: Any) -> None:
    """A trunk's checkpoint holds no auxiliary network: one line instead of one for each parameter."""
    missing = incompatible_keys.missing_keys
    absent = [name for name in missing if name in backbone._absent_keys]
    if absent:
        missing[:] = [name for name in missing if name not in backbone._absent_keys]
        print_log(
            f'The checkpoint holds the trunk alone: the auxiliary networks of blocks 0 to {len(backbone.cuts) - 1} '
            'start from it (branches) and from their own initialisation (heads).',
            logger='current',
        )
