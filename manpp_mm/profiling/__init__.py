"""What a training step holds and how long it takes, on any device, and what a training logged."""

from .counts import StepCounts
from .live_bytes import Held, LiveBytes, PeakRecorder
from .report import peak_table, plot_modes, plot_sweep, table
from .step import HEADS_CHECKPOINTED, MODES, Measurement, TrainingStep, measure
from .sweep import variants
from .training_log import plot_training, read_scalars

__all__ = [
    'HEADS_CHECKPOINTED',
    'MODES',
    'Held',
    'LiveBytes',
    'Measurement',
    'PeakRecorder',
    'StepCounts',
    'TrainingStep',
    'measure',
    'peak_table',
    'plot_modes',
    'plot_sweep',
    'plot_training',
    'read_scalars',
    'table',
    'variants',
]
