"""Which cuts, and which way to train, fit a memory budget."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from ..backbones import mode_of
from ..backbones.config import without_networks
from ..checkpoint_file import read_checkpoint, trained_config
from ..local import Cut
from ..mode import USUAL, Mode
from .footprint import Footprint, footprint, padded
from .inputs import bytes_before_step, input_bytes, model_bytes, training_input
from .plan import Plan, plans
from .profile import profile

NEARLY = 1.02
"""Peaks within this factor are taken for equal: a block more costs its auxiliary network's work, and takes units from
the task's gradient."""

_UNITS = {'': 1, 'K': 10**3, 'M': 10**6, 'G': 10**9, 'T': 10**12, 'KI': 2**10, 'MI': 2**20, 'GI': 2**30, 'TI': 2**40}


def parse_size(text: 'str | int | float') -> int:
    """Bytes of a size such as ``'6GiB'``, ``'6.5 GB'`` or a number of bytes.

    Raises:
        ValueError: It is not a size.
    """
    found = re.fullmatch(r'\s*(\d+(?:\.\d*)?)\s*([KMGT]I?)?B?\s*', str(text).upper())
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"memory_budget={text!r} is not a size: write '6GiB', '800MB' or a number of bytes")
    return int(float(found[1]) * _UNITS[found[2] or ''])


def choose_plan(candidates: Sequence[Plan], static: int, budget: int | None = None) -> Plan:
    """Choose a plan: the fewest blocks within a budget, or, without one, the fewest whose peak is about the lowest.

    Args:
        candidates: The best plan for each number of blocks, the fewest first.
        static: Bytes of what is there before a step, without auxiliary networks.
        budget: Bytes for everything, or None.

    Raises:
        ValueError: The budget is below what the best plan needs.
    """
    lowest = min(candidates, key=lambda found: found.peak_bytes)
    if budget is None:
        return next(found for found in candidates if found.peak_bytes <= NEARLY * lowest.peak_bytes)
    for found in candidates:
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


def plan_config(config: Config) -> None:
    """Put planned cuts in place of ``local_blocks='auto'``.

    Args:
        config: Changed in place; the plan is kept as ``manpp_plan`` too.

    Raises:
        ValueError: The budget is no size or below the floor, or the cuts cannot be planned.
    """
    backbone = config.model.backbone
    if mode_of(config).exact:
        raise ValueError("local_blocks='auto' plans block-local training: set cuts for model.backbone.gradient='exact'")
    if backbone.get('cuts') is not None:
        raise ValueError("local_blocks='auto' plans the cuts: set model.backbone.cuts=None")
    budget = backbone.get('memory_budget')
    batch, size = training_input(config)
    found, static = planned(config, batch, size, budget_of(config))
    apply_plan(
        config,
        dict(
            memory_budget=budget,
            input=[batch, *size],
            cuts=[list(cut) for cut in found.cuts],
            predicted_bytes=static + found.auxiliary_bytes + found.peak_bytes,
            table=found.table(static).splitlines(),
        ),
    )


def needs_plan(config: Config) -> bool:
    """Whether a config leaves its cuts to be planned."""
    return config.model.get('backbone', {}).get('local_blocks') == 'auto'


def apply_plan(config: Config, plan: Mapping) -> None:
    """Put a plan, as ``manpp_plan`` holds it, in place of ``local_blocks='auto'``."""
    apply_cuts(config, plan['cuts'])
    config.manpp_plan = plan


def plan_cuts(config: Config, checkpoint: str | None = None) -> None:
    """Put cuts in place of ``local_blocks='auto'``: those of a checkpoint, or planned ones.

    Args:
        config: Changed in place; without ``'auto'`` left as it is.
        checkpoint: What is resumed or tested; None plans.

    Raises:
        ValueError: The checkpoint's own config holds no plan; see :func:`plan_config`.
    """
    if not needs_plan(config):
        return
    if checkpoint is None:
        plan_config(config)
        return
    found = trained_config(read_checkpoint(checkpoint)).get('manpp_plan')
    if found is None:
        raise ValueError(
            f"{checkpoint} was not trained with model.backbone.local_blocks='auto': write the cuts of its own config "
            'into this one'
        )
    apply_plan(config, found)


def budget_of(config: Config) -> int | None:
    """A config's ``memory_budget`` in bytes, None without one."""
    budget = config.model.backbone.get('memory_budget')
    return None if budget is None else parse_size(budget)


def planned(config: Config, batch: int, size: tuple[int, int], budget: int | None) -> tuple[Plan, int]:
    """A plan for a config, and the bytes that are there before a step."""
    static = bytes_before_step(config, batch, size, local=False)  # the cuts are not known yet
    return choose_plan(plans(profile(config, batch, size)), static, budget), static


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
    return MODELS.build(without_networks(config.model.backbone)).cuts


@dataclass
class Choice:
    """One way to train.

    Attributes:
        mode: One of :data:`manpp_mm.mode.MODES`.
        peak_bytes: Predicted peak beyond what is there before the step.
        static_bytes: What is there before the step.
        relative_time: Floating-point operations relative to end-to-end training.
        largest_batch: The most images a step within the budget; None without one, 0 if not even one fits.
    """

    mode: Mode
    peak_bytes: int
    static_bytes: int
    relative_time: float
    largest_batch: int | None


CHOICES = tuple(each for mode in USUAL if not mode.frozen for each in (mode, mode.with_heads_spared()))
"""The ways to train among which to choose."""


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
        fixed = model_bytes(config, local=mode.local)
        needs = partial(_needs, small, fixed, size)
        found.append(
            Choice(
                mode,
                small.peak_at(batch, size),
                fixed + batch * input_bytes(size),
                small.flops_at(batch, size) / reference,
                None if budget is None else _largest(needs, budget),
            )
        )
    return found


def _needs(small: Footprint, fixed: int, size: tuple[int, int], batch: int) -> int:
    return fixed + batch * input_bytes(size) + small.peak_at(batch, size)


def _largest(needs: Callable[[int], int], budget: int) -> int:
    high = 1
    while needs(high) <= budget:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needs(middle) <= budget else (low, middle)
    return low


def predicted_peak(config: Config) -> str:
    """What a training step of a config with cuts needs, in a sentence.

    Raises:
        ValueError: The training pipeline names no image size, or see :class:`Footprint`.
    """
    mode = mode_of(config)
    batch, size = training_input(config)
    size = padded(config, size)
    peak = footprint(config, mode).peak_at(batch, size)
    before = bytes_before_step(config, batch, size, mode.local)
    return (
        f'A step on {batch} images of {size[0]}x{size[1]} in float32 is predicted to peak at {peak / 1e6:.0f} MB '
        f'beside {before / 1e6:.0f} MB of parameters, optimizer state and images'
    )
