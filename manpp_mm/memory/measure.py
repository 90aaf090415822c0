"""Measurement of several modes of a config."""

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
    """Memory, work and time of one mode.

    Attributes:
        peak_bytes: Peak bytes of live tensors in addition to parameters, buffers and inputs.
        operators, synchronisations, flops: See :class:`manpp_mm.memory.StepCounts`.
        step_seconds: Median of the timed steps, NaN if none was timed.
        step_seconds_spread: The longest minus the shortest timed step.
        allocated_bytes: On a GPU, ``max_memory_allocated`` minus the memory allocated before the step, including
            convolution workspaces; None on a CPU.
        device_seconds: On a GPU, the sum of the kernels' times in a step, NaN if none was timed; None on a CPU. If it
            is well below ``step_seconds``, the step is limited by kernel launches or waiting, not by arithmetic.
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
        """Convert to a dict for a JSON file, with None where nothing was timed."""
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
    """Measure modes: first the peaks, then timed steps in turns, so that a busy machine affects all modes equally.

    Args:
        config: The config of a block-local detector or segmentor.
        modes: Any of :data:`manpp_mm.mode.MODES`, or their names.
        batch: Images per step.
        size: Height and width of an image in pixels.
        repeats: Timed steps per mode; 0 measures memory only.
        device: Device to run on.
        seed, amp: See :class:`TrainingStep`.
        progress: Called after each step, ``len(modes) * (1 + repeats)`` times.

    Returns:
        The measurement of each mode, by its name.
    """
    steps = {str(mode): TrainingStep(config, mode, batch, size, device, seed, amp) for mode in modes}
    counts: dict[str, StepCounts] = {}
    allocated: dict[str, int | None] = {}
    for mode, step in steps.items():
        if device != 'cpu':
            step.run()  # warm-up of the allocator, cuDNN and the host's code
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
