"""Several modes of a config measured side by side."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import isnan

import torch
from mmengine.config import Config

from ..mode import Mode
from .counts import StepCounts
from .training_step import TrainingStep


@dataclass
class Measurement:
    """What one mode takes.

    Attributes:
        peak_bytes: Peak bytes of live tensors beyond parameters, buffers and inputs.
        operators, synchronisations, flops: See :class:`manpp_mm.memory.StepCounts`.
        step_seconds: Median of the timed steps, NaN where none was timed.
        step_seconds_spread: The longest minus the shortest of them.
        allocated_bytes: On a GPU ``max_memory_allocated`` beyond what was allocated before the step, convolution
            workspaces included; None on a CPU.
        device_seconds: On a GPU the sum of the kernels' times in a step, NaN where none was timed; None on a CPU. Well
            below ``step_seconds`` the step is bound by launching them, or by waiting, not by arithmetic.
    """

    peak_bytes: int
    operators: int
    synchronisations: int
    flops: int
    step_seconds: float
    step_seconds_spread: float
    allocated_bytes: int | None = None
    device_seconds: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """For a JSON file: None where nothing was timed."""
        return {name: None if value is not None and isnan(value) else value for name, value in asdict(self).items()}


def measure(
    config: Config,
    modes: 'Sequence[str | Mode]',
    batch: int,
    size: tuple[int, int],
    repeats: int = 3,
    device: str = 'cpu',
    seed: int = 0,
    amp: torch.dtype | None = None,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Measurement]:
    """Measure modes side by side: peaks first, then the timed steps in turns, so that a busy machine hits all alike.

    Args:
        config: The config of a block-local detector or segmentor.
        modes: Some of :data:`manpp_mm.mode.MODES`, or their names.
        batch: Images a step.
        size: Height and width of an image in pixels.
        repeats: Timed steps of each mode; 0 measures memory alone.
        device: Where to run.
        seed, amp: See :class:`TrainingStep`.
        progress: Called after each step, ``len(modes) * (1 + repeats)`` times.

    Returns:
        A measurement for each mode by its name: the median of the timed steps, and their largest minus their smallest.
    """
    steps = {str(mode): TrainingStep(config, mode, batch, size, device, seed, amp) for mode in modes}
    counts: dict[str, StepCounts] = {}
    allocated: dict[str, int | None] = {}
    for mode, step in steps.items():
        if device != 'cpu':
            step.run()  # the allocator, cuDNN and branches of the host's code warm up
        counts[mode], allocated[mode] = step.counts(), step.allocated_bytes()
        progress()
    seconds: dict[str, list[float]] = {mode: [] for mode in steps}
    for _ in range(repeats):
        for mode, step in steps.items():
            seconds[mode].append(step.seconds())
            progress()
    nothing = float('nan')
    return {
        mode: Measurement(
            counts[mode].peak,
            counts[mode].operators,
            counts[mode].synchronisations,
            counts[mode].flops,
            statistics.median(seconds[mode]) if repeats else nothing,
            max(seconds[mode]) - min(seconds[mode]) if repeats else nothing,
            allocated[mode],
            step.device_seconds() if repeats or device == 'cpu' else nothing,
        )
        for mode, step in steps.items()
    }
