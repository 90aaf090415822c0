"""One training step of a config in several modes, measured side by side."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from torch import nn

from ..hooks.local_learning_hook import attach
from ..models.plain import plain_model
from .live_bytes import LiveBytes

MODES = ('end_to_end', 'end_to_end_checkpointed', 'local', 'local_checkpointed', 'frozen')
"""What can be measured; ``frozen`` is the floor that neck and heads set."""


@dataclass
class Measurement:
    """Peak bytes of live tensors beyond parameters and inputs; median and range of the timed steps in seconds,
    NaN where none was timed."""

    peak_bytes: int
    step_seconds: float
    step_seconds_spread: float

    def as_dict(self) -> dict[str, float | None]:
        """For a JSON file: None where nothing was timed."""
        return {name: None if isnan(value) else value for name, value in asdict(self).items()}


class TrainingStep:
    """Forward and backward of a config's model in one mode, on drawn images and targets, without an optimizer.

    Args:
        config: The config of a block-local detector or segmentor.
        mode: One of :data:`MODES`.
        batch: Images a step.
        size: Height and width of an image in pixels.
        device: Where to run.
        seed: Of the weights and a segmentor's images and targets; a detector's are always the same.

    Raises:
        ValueError: An unknown mode, or a config without a local backbone.
    """

    def __init__(
        self, config: Config, mode: str, batch: int, size: tuple[int, int], device: str = 'cpu', seed: int = 0
    ) -> None:
        if mode not in MODES:
            raise ValueError(f'unknown mode {mode!r}, choose from {", ".join(MODES)}')
        init_default_scope(config.get('default_scope', 'mmengine'))
        plain = plain_model(config.model)
        model = config.model.copy() if mode.startswith('local') else plain
        model['backbone'] = dict(model['backbone'], init_cfg=None, with_cp=mode.endswith('_checkpointed'))
        model.pop('pretrained', None)
        if model.get('data_preprocessor', {}).get('size') is not None:
            model['data_preprocessor'] = dict(model['data_preprocessor'], size=size)  # a segmentor pads to it
        torch.manual_seed(seed)
        self.model: nn.Module = MODELS.build(model)
        if device == 'cpu':
            self.model = revert_sync_batchnorm(self.model)
        self.model.to(device)
        self.model.init_weights()
        self.model.train()
        if mode == 'frozen':
            self.model.backbone.requires_grad_(False)
        if mode.startswith('local'):
            self.model.backbone.sync_auxiliary()
            attach(self.model)
        if config.get('default_scope') == 'mmseg':
            drawn = draw_segmentation(self.model.num_classes, batch, size, seed)
        else:
            head = self.model.roi_head.bbox_head if hasattr(self.model, 'roi_head') else self.model.bbox_head
            head = head[-1] if isinstance(head, nn.ModuleList) else head  # a cascade
            drawn = draw_detection(head.num_classes, batch, size, getattr(self.model, 'with_mask', False))
        self.data = self.model.data_preprocessor(drawn, True)

    def run(self) -> None:
        """One forward and backward; gradients are dropped afterwards."""
        loss, _ = self.model.parse_losses(self.model(**self.data, mode='loss'))
        loss.backward()
        self.model.zero_grad(set_to_none=True)

    def peak_bytes(self) -> int:
        """Peak bytes of live tensors of one step beyond parameters, buffers and inputs."""
        kept = [*self.model.parameters(), *self.model.buffers(), self.data['inputs']]
        with LiveBytes(exclude=kept) as live:
            self.run()
        return live.peak

    def seconds(self) -> float:
        """Wall time of one step."""
        _synchronize()
        start = time.perf_counter()
        self.run()
        _synchronize()
        return time.perf_counter() - start


def measure(
    config: Config,
    modes: Sequence[str],
    batch: int,
    size: tuple[int, int],
    repeats: int = 3,
    device: str = 'cpu',
    seed: int = 0,
) -> dict[str, Measurement]:
    """Measure modes side by side: peaks first, then the timed steps in turns, so that a busy machine hits all alike.

    Args:
        config: The config of a block-local detector or segmentor.
        modes: Some of :data:`MODES`.
        batch: Images a step.
        size: Height and width of an image in pixels.
        repeats: Timed steps of each mode; 0 measures memory alone.
        device: Where to run.
        seed: See :class:`TrainingStep`.

    Returns:
        A measurement for each mode: the median of the timed steps, and their largest minus their smallest.
    """
    steps = {mode: TrainingStep(config, mode, batch, size, device, seed) for mode in modes}
    peaks = {mode: step.peak_bytes() for mode, step in steps.items()}
    seconds: dict[str, list[float]] = {mode: [] for mode in modes}
    for _ in range(repeats):
        for mode, step in steps.items():
            seconds[mode].append(step.seconds())
    return {
        mode: Measurement(
            peaks[mode],
            statistics.median(seconds[mode]) if repeats else float('nan'),
            max(seconds[mode]) - min(seconds[mode]) if repeats else float('nan'),
        )
        for mode in modes
    }


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def draw_detection(num_classes: int, batch: int, size: tuple[int, int], with_mask: bool = False) -> dict:
    """Random images with 8 boxes each, as MMDetection's loaders give them; needs mmdet."""
    from mmdet.testing import demo_mm_inputs

    items = [8] * batch
    return demo_mm_inputs(
        batch, (3, *size), num_items=items, num_classes=num_classes, with_mask=with_mask, use_box_type=True
    )


def draw_segmentation(num_classes: int, batch: int, size: tuple[int, int], seed: int = 0) -> dict:
    """Random images with label maps of 32-pixel squares, as MMSegmentation's loaders give them; needs mmseg."""
    from mmseg.structures import SegDataSample

    generator = np.random.default_rng(seed)
    inputs, samples = [], []
    for _ in range(batch):
        inputs.append(torch.from_numpy(generator.integers(0, 255, (3, *size), dtype=np.uint8)))
        coarse = generator.integers(0, num_classes, (1, -(-size[0] // 32), -(-size[1] // 32)))
        labels = coarse.repeat(32, 1).repeat(32, 2)[:, : size[0], : size[1]]
        sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size))
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(labels))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)
