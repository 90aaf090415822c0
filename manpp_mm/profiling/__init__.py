"""What a training step holds and how long it takes, on any device, and what a training logged."""

from .live_bytes import LiveBytes
from .step import MODES, Measurement, TrainingStep, measure
from .training_log import plot_training, read_scalars

__all__ = ['MODES', 'LiveBytes', 'Measurement', 'TrainingStep', 'measure', 'plot_training', 'read_scalars']
