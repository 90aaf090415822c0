"""Where to cut: plans from what each unit, auxiliary network and head was measured to keep and to hold."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from ..local import Cut
from .footprint import BATCH, SMALL, Footprint, footprint, padded, static_bytes
from .step import HEADS_CHECKPOINTED, TrainingStep, mode_of

_UNITS = {'': 1, 'K': 10**3, 'M': 10**6, 'G': 10**9, 'T': 10**12, 'KI': 2**10, 'MI': 2**20, 'GI': 2**30, 'TI': 2**40}

NEARLY = 1.02
"""Peaks within this factor are taken for equal: a block more costs its auxiliary network's work, and takes units from
the task's gradient."""


def parse_size(text: 'str | int | float') -> int:
    """Bytes of a size such as ``'6GiB'``, ``'6.5 GB'`` or a number of bytes.

    Raises:
        ValueError: It is not a size.
    """
    found = re.fullmatch(r'\s*(\d+(?:\.\d*)?)\s*([KMGT]I?)?B?\s*', str(text).upper())
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"memory_budget={text!r} is not a size: write '6GiB', '800MB' or a number of bytes")
    return int(float(found[1]) * _UNITS[found[2] or ''])


@dataclass
class Plan:
    """Cuts and what they are predicted to need.

    Attributes:
        cuts: The cuts.
        blocks: Units of each local block from the first unit that trains on, and the bytes alive at its peak.
        peak_bytes: The highest of them.
        auxiliary_bytes: Parameters, buffers and optimizer state of the auxiliary networks.
    """

    cuts: list[Cut]
    blocks: list[tuple[list[Cut], int]]
    peak_bytes: int
    auxiliary_bytes: int


@dataclass
class _Unit:
    """What one unit and the auxiliary network after it take, in bytes at the planned input."""

    kept: float
    """What forward keeps for backward, the output included."""
    forward: float
    """Most alive in forward, from the unit's start."""
    auxiliary: float
    """Most that forward and backward of the auxiliary network (after the last unit: of neck and heads) add to it."""
    backward: float
    """Most that backward adds to what is kept, the auxiliary network's gradients apart."""
    gradients: int
    """Of the unit's parameters."""
    auxiliary_gradients: int


class Profile:
    """A model's memory unit by unit, and the plans that follow from it.

    Takes one small step of the model cut after every unit and scales it (see :class:`Footprint`).

    Args:
        config: The config of a block-local detector or segmentor with one ``auxiliary`` for all cuts.
        batch: Images a step.
        size: Height and width of an image in pixels.

    Raises:
        ValueError: ``auxiliary`` is a list.
    """

    def __init__(self, config: Config, batch: int, size: tuple[int, int]) -> None:
        config = copy.deepcopy(config)
        backbone = config.model.backbone
        if not isinstance(backbone.get('auxiliary'), Mapping):
            raise ValueError(
                'cuts are planned with one auxiliary=dict(...) for all of them: model.backbone.auxiliary is '
                f'{type(backbone.get("auxiliary")).__name__}'
            )
        init_default_scope(config.get('default_scope', 'mmengine'))
        self.units: list[Cut] = trained_units(config)
        config.model.backbone = with_cuts(backbone, self.units[:-1])
        mode = 'local_checkpointed' if backbone.get('with_cp') else 'local'
        step = TrainingStep(config, mode, BATCH, SMALL)
        with Footprint(step) as live:
            _mark(step.model, self.units, live)
            step.run()
            live.mark(f'unit{len(self.units)}')
        line = live.at(batch, padded(config, size))
        built = step.model.backbone
        grads = [_gradient_bytes(unit) for unit in _unit_modules(built, self.units)]
        grads[0] += sum(map(_gradient_bytes, built.stem_modules()))
        # Neck and heads are to the last unit what auxiliary networks are to the others.
        auxiliary = [_gradient_bytes(network) for network in built.auxiliary]
        auxiliary.append(sum(_gradient_bytes(m) for name, m in step.model.named_children() if name != 'backbone'))
        self._static = [static_bytes(config, n.parameters(), n.buffers()) for n in built.auxiliary]
        self._units: list[_Unit] = []
        self._base: list[float] = []
        """Alive where each unit starts, gradients apart: its input and the features kept for the neck."""
        for j in range(len(self.units)):
            unit, network, back, following = f'unit{j}', f'auxiliary{j}', f'back{j}', f'unit{j + 1}'
            start = line.now(unit)
            kept = line.now(network) - start
            self._base.append(start - sum(grads[:j]) - sum(auxiliary[:j]))
            self._units.append(
                _Unit(
                    kept=kept,
                    forward=line.highest(unit, network) - start,
                    auxiliary=line.highest(network, back) - start - kept,
                    backward=line.highest(back, following) - start - kept - auxiliary[j],
                    gradients=grads[j],
                    auxiliary_gradients=auxiliary[j],
                )
            )

    def _block(self, first: int, last: int) -> float:
        """The most alive while the units from ``first`` to ``last`` learn, beyond what was there before."""
        highest = kept = 0.0
        for unit in self._units[first : last + 1]:
            highest = max(highest, kept + unit.forward)
            kept += unit.kept
        end = self._units[last]
        highest = max(highest, kept + end.auxiliary)
        held = end.auxiliary_gradients
        for unit in reversed(self._units[first : last + 1]):
            highest = max(highest, kept + held + unit.backward)
            kept -= unit.kept
            held += unit.gradients
        return highest

    def plans(self) -> list[Plan]:
        """The plan with the lowest predicted peak for each number of blocks that can be had, one block first."""
        number = len(self._units)
        blocks = [[self._block(a, b) if b >= a else 0.0 for b in range(number)] for a in range(number)]
        before = [base + sum(u.gradients for u in self._units[:a]) for a, base in enumerate(self._base)]
        found = []
        # For each unit that a block may start with: (peak so far, gradients of auxiliary networks so far, cuts).
        states: dict[int, list[tuple[float, int, tuple[int, ...]]]] = {0: [(0.0, 0, ())]}
        while states:
            finished = [
                (max(peak, before[a] + kept + blocks[a][number - 1]), cuts)
                for a, frontier in states.items()
                for peak, kept, cuts in frontier
            ]
            found.append(self._plan(min(finished)[1], blocks, before))
            following: dict[int, list] = {}
            for a, frontier in states.items():
                for b in range(a, number - 1):
                    following.setdefault(b + 1, []).extend(
                        (max(peak, before[a] + kept + blocks[a][b]), kept + self._units[b].auxiliary_gradients,
                         (*cuts, b))
                        for peak, kept, cuts in frontier
                    )  # fmt: skip
            states = {start: _undominated(frontier) for start, frontier in following.items()}
        return found

    def _plan(self, cuts: tuple[int, ...], blocks: list[list[float]], before: list[float]) -> Plan:
        kept = 0
        parts = []
        for a, b in pairwise([-1, *cuts, len(self._units) - 1]):
            parts.append((self.units[a + 1 : b + 1], round(before[a + 1] + kept + blocks[a + 1][b])))
            kept += self._units[b].auxiliary_gradients
        static = sum(self._static[b] for b in cuts)
        return Plan([self.units[b] for b in cuts], parts, max(peak for _, peak in parts), static)


def plan(profile: Profile, static: int, budget: int | None = None) -> Plan:
    """Choose a plan: the fewest blocks within a budget, or, without one, the fewest whose peak is about the lowest.

    Args:
        profile: A model's.
        static: Bytes of what is there before a step, without auxiliary networks.
        budget: Bytes for everything, or None.

    Raises:
        ValueError: The budget is below what the best plan needs.
    """
    plans = profile.plans()
    lowest = min(plans, key=lambda found: found.peak_bytes)
    if budget is None:
        return next(found for found in plans if found.peak_bytes <= NEARLY * lowest.peak_bytes)
    for found in plans:
        if static + found.auxiliary_bytes + found.peak_bytes <= budget:
            return found
    static += lowest.auxiliary_bytes
    raise ValueError(
        f'memory_budget={budget / 2**30:.2f}GiB is below the floor: the best plan needs '
        f'{(static + lowest.peak_bytes) / 2**30:.2f}GiB ({static / 2**30:.2f}GiB of them parameters, optimizer state '
        f'and inputs) with cuts={lowest.cuts}. Take a smaller batch, checkpoint neck and heads '
        "(CheckpointModulesHook), take the RPN's loss early (EarlyLossHook), checkpoint units (with_cp=True), or use "
        'mixed precision'
    )


def training_input(config: Config) -> tuple[int, tuple[int, int]]:
    """Images a step and their height and width, from the config's training loader.

    Raises:
        ValueError: Its pipeline does not tell.
    """
    loader = config.train_dataloader
    dataset = loader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    sizes = []
    for transform in dataset.get('pipeline', []):
        if transform.type == 'RandomCrop':
            crop = transform.crop_size
            sizes = [(crop, crop) if isinstance(crop, int) else tuple(crop)]
        elif transform.type in ('Resize', 'RandomChoiceResize', 'RandomResize'):
            scales = transform.get('scales') or transform.get('scale')
            if not isinstance(scales, Sequence):
                continue  # a factor, or one side alone: the images decide
            scales = scales if isinstance(scales[0], Sequence) else [scales]
            sizes = [max(((min(s), max(s)) for s in scales), key=lambda s: s[0] * s[1])]
    padded_to = config.model.get('data_preprocessor', {}).get('size')
    if padded_to:
        sizes = [tuple(padded_to)]
    if not sizes:
        raise ValueError(
            'the training pipeline names no image size (Resize or RandomCrop): give it, --input N H W of '
            'tools/plan_cuts.py'
        )
    return loader.batch_size, sizes[0]


def plan_config(config: Config) -> None:
    """Put planned cuts in place of ``local_blocks='auto'``.

    Args:
        config: Changed in place; the plan is kept as ``manpp_plan`` too.

    Raises:
        ValueError: The budget is no size or below the floor, or the cuts cannot be planned.
    """
    backbone = config.model.backbone
    if backbone.get('gradient') == 'exact':
        raise ValueError("local_blocks='auto' plans block-local training: set cuts for model.backbone.gradient='exact'")
    if backbone.get('cuts') is not None:
        raise ValueError("local_blocks='auto' plans the cuts: set model.backbone.cuts=None")
    budget = backbone.get('memory_budget')
    batch, size = training_input(config)
    found, static = planned(config, batch, size, budget_of(config))
    apply_cuts(config, found.cuts)
    config.manpp_plan = dict(
        memory_budget=budget,
        input=[batch, *size],
        cuts=[list(cut) for cut in found.cuts],
        predicted_bytes=static + found.auxiliary_bytes + found.peak_bytes,
        table=plan_table(found, static).splitlines(),
    )


def budget_of(config: Config) -> int | None:
    """A config's ``memory_budget`` in bytes, None without one."""
    budget = config.model.backbone.get('memory_budget')
    return None if budget is None else parse_size(budget)


def planned(config: Config, batch: int, size: tuple[int, int], budget: int | None) -> tuple[Plan, int]:
    """A plan for a config, and the bytes that are there before a step."""
    static = bytes_before_step(config, batch, size)
    return plan(Profile(config, batch, size), static, budget), static


def apply_cuts(config: Config, cuts: Sequence[Sequence[int]]) -> None:
    """Write cuts into a config in place of ``local_blocks`` and ``memory_budget``."""
    config.model.backbone.cuts = [tuple(cut) for cut in cuts]
    config.model.backbone.local_blocks = None
    config.model.backbone.pop('memory_budget', None)


def own_cuts(config: Config) -> list[Cut]:
    """The cuts that a config names, or that follow from its ``local_blocks``.

    Raises:
        ValueError: It leaves them to be planned, or they do not fit.
    """
    init_default_scope(config.get('default_scope', 'mmengine'))
    return MODELS.build(dict(copy.deepcopy(config.model.backbone), gradient='exact', init_cfg=None)).cuts


def plan_table(found: Plan, static: int) -> str:
    """A plan in lines: block, units, predicted MB."""
    lines = [f'{"block":<8}{"units (stage, unit)":<28}{"number":>7}{"peak MB":>10}']
    for index, (units, peak) in enumerate(found.blocks):
        words = str(units[0]) if len(units) == 1 else f'{units[0]} to {units[-1]}'
        lines.append(f'{index:<8}{words:<28}{len(units):>7}{peak / 1e6:>10.0f}')
    before = static + found.auxiliary_bytes
    lines.append(
        f'cuts={found.cuts}: {found.peak_bytes / 1e6:.0f} MB at the peak, and {before / 1e6:.0f} MB of parameters, '
        'optimizer state and inputs'
    )
    return '\n'.join(lines)


@dataclass
class Choice:
    """One way to train.

    Attributes:
        mode: One of :data:`manpp_mm.profiling.MODES`.
        peak_bytes: Predicted peak beyond what is there before the step.
        static_bytes: What is there before the step.
        relative_time: Floating-point operations relative to end-to-end training.
        largest_batch: The most images a step within the budget; None without one, 0 if not even one fits.
    """

    mode: str
    peak_bytes: int
    static_bytes: int
    relative_time: float
    largest_batch: int | None


CHOICES = tuple(
    mode + suffix for mode in ('end_to_end', 'end_to_end_checkpointed', 'exact', 'local', 'local_checkpointed')
    for suffix in ('', HEADS_CHECKPOINTED)
)  # fmt: skip


def choices(config: Config, batch: int, size: tuple[int, int], budget: int | None = None) -> list[Choice]:
    """What each way to train a config with explicit cuts needs.

    Args:
        config: A block-local config.
        batch: Images a step.
        size: Height and width in pixels.
        budget: Bytes for everything; then the largest batch is found, too.
    """
    size = padded(config, size)
    found = []
    reference = None
    for mode in CHOICES:
        small = footprint(config, mode)
        reference = reference or small.flops_at(batch, size)
        fixed = model_bytes(config, local=mode.startswith('local'))
        needs = partial(_needs, small, fixed, size)
        found.append(
            Choice(
                mode,
                small.peak_at(batch, size),
                fixed + batch * _input_bytes(size),
                small.flops_at(batch, size) / reference,
                None if budget is None else _largest(needs, budget),
            )
        )
    return found


def _needs(small: Footprint, fixed: int, size: tuple[int, int], batch: int) -> int:
    return fixed + batch * _input_bytes(size) + small.peak_at(batch, size)


def _largest(needs: Any, budget: int) -> int:
    high = 1
    while needs(high) <= budget:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needs(middle) <= budget else (low, middle)
    return low


def choice_table(found: Sequence[Choice], budget: int | None) -> str:
    """Choices in lines: predicted MB of everything, ratio to end-to-end, relative work, whether it fits."""
    sized = any(item.largest_batch is not None for item in found)
    header = f'{"training":<42}{"total MB":>10}{"peak MB":>10}{"ratio":>8}{"work":>7}'
    lines = [header + ('' if budget is None else f'{"fits":>6}') + (f'{"batch":>7}' if sized else '')]
    for item in found:
        total = item.static_bytes + item.peak_bytes
        line = (
            f'{item.mode:<42}{total / 1e6:>10.0f}{item.peak_bytes / 1e6:>10.0f}'
            f'{item.peak_bytes / found[0].peak_bytes:>8.3f}{item.relative_time:>7.2f}'
        )
        fits = '' if budget is None else f'{"yes" if total <= budget else "no":>6}'
        lines.append(line + fits + (f'{item.largest_batch:>7}' if sized else ''))
    return '\n'.join(lines)


def bytes_before_step(config: Config, batch: int, size: tuple[int, int]) -> int:
    """Bytes of parameters, buffers, optimizer state and a batch of images, before cuts are known."""
    return model_bytes(config, local=False) + batch * _input_bytes(padded(config, size))


def predicted_peak(config: Config) -> str:
    """What a training step of a config with cuts needs, in a sentence.

    Raises:
        ValueError: The training pipeline names no image size, or see :class:`Footprint`.
    """
    mode = mode_of(config)
    batch, size = training_input(config)
    size = padded(config, size)
    peak = footprint(config, mode).peak_at(batch, size)
    before = model_bytes(config, local=mode.startswith('local')) + batch * _input_bytes(size)
    return (
        f'A step on {batch} images of {size[0]}x{size[1]} in float32 is predicted to peak at {peak / 1e6:.0f} MB '
        f'beside {before / 1e6:.0f} MB of parameters, optimizer state and images'
    )


def model_bytes(config: Config, local: bool) -> int:
    """Bytes of a model's parameters, buffers and optimizer state; without auxiliary networks unless ``local``."""
    init_default_scope(config.get('default_scope', 'mmengine'))
    model = copy.deepcopy(config.model)
    if not local:
        model.backbone = with_cuts(model.backbone, [], gradient='exact')
    built = MODELS.build(model)
    return static_bytes(config, built.parameters(), built.buffers())


def _input_bytes(size: tuple[int, int]) -> int:
    return 3 * 4 * size[0] * size[1]


def with_cuts(backbone: Mapping, cuts: Sequence[Cut], **keys: Any) -> dict:
    """A deep copy of a backbone's config with other cuts; nothing else says where to cut."""
    return dict(copy.deepcopy(backbone), cuts=list(cuts), local_blocks=None, memory_budget=None, **keys)


def trained_units(config: Config) -> list[Cut]:
    """The units of a config's backbone from the first that trains on."""
    init_default_scope(config.get('default_scope', 'mmengine'))
    return MODELS.build(with_cuts(config.model.backbone, [], gradient='exact', init_cfg=None)).trained_units


def _unit_modules(backbone: nn.Module, units: Sequence[Cut]) -> list[nn.Module]:
    stages = backbone.stages()
    return [stages[stage][unit] for stage, unit in units]


def _gradient_bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)


def _undominated(frontier: list[tuple[float, int, tuple[int, ...]]]) -> list[tuple[float, int, tuple[int, ...]]]:
    """The states for which no other has both a lower peak and fewer gradients."""
    kept: list[tuple[float, int, tuple[int, ...]]] = []
    for state in sorted(frontier):
        if not kept or state[1] < kept[-1][1]:
            kept.append(state)
    return kept


def _mark(model: nn.Module, units: Sequence[Cut], live: Footprint) -> None:
    """Name the moments of a step of a model that is cut after every unit."""
    backbone = model.backbone
    modules = _unit_modules(backbone, units)
    backbone.register_forward_pre_hook(lambda *_: live.mark('unit0'))
    for j, module in enumerate(modules[1:], 1):
        module.register_forward_pre_hook(lambda *_, j=j: live.mark(f'unit{j}'))
    for j, network in enumerate(backbone.auxiliary):

        def auxiliary(module: nn.Module, args: tuple, j: int = j) -> None:
            live.mark(f'auxiliary{j}')
            args[0].register_hook(lambda gradient: live.mark(f'back{j}'))

        network.register_forward_pre_hook(auxiliary)

    def heads(module: nn.Module, args: tuple, outputs: Sequence[Tensor]) -> None:
        live.mark(f'auxiliary{len(units) - 1}')
        outputs[-1].register_hook(lambda gradient: live.mark(f'back{len(units) - 1}'))

    backbone.register_forward_hook(heads)
