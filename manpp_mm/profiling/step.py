"""One training step of a config in several modes, measured side by side."""

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from math import isnan

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ..hooks.checkpoint_modules_hook import check_ran, checkpoint_modules
from ..hooks.early_loss_hook import take_losses_early
from ..hooks.local_learning_hook import attach
from ..models.plain import is_local, plain_model
from .counts import StepCounts
from .live_bytes import Held, PeakRecorder

HEADS_CHECKPOINTED = '_heads_checkpointed'
_BACKBONES = (
    'end_to_end', 'end_to_end_checkpointed', 'exact', 'exact_checkpointed', 'local', 'local_checkpointed', 'frozen'
)  # fmt: skip
MODES = (*_BACKBONES, *(mode + HEADS_CHECKPOINTED for mode in _BACKBONES), 'end_to_end_offloaded')
"""What can be measured: the backbone's training, with or without neck and heads checkpointed (and the RPN's loss taken
early). ``local`` and ``exact`` run with a block-local config's own CheckpointModulesHook and EarlyLossHook, the others
without; a config without a local backbone has modes without either alone, and keeps its hooks;
``frozen`` is the floor that neck and heads set; ``end_to_end_offloaded`` keeps activations in host memory and needs a
GPU."""

HEADS = ('neck', 'bbox_head', 'roi_head.mask_head', 'decode_head')
"""The modules that ``_heads_checkpointed`` checkpoints where a model has them."""

EARLY = ('rpn_head',)
"""The heads whose losses it takes early; checkpointing the RPN as well was measured to spare nothing more."""


@dataclass
class Measurement:
    """What one mode takes.

    Attributes:
        peak_bytes: Peak bytes of live tensors beyond parameters, buffers and inputs.
        operators, synchronisations, flops: See :class:`manpp_mm.profiling.StepCounts`.
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


def mode_of(config: Config) -> str:
    """The mode that a config trains in."""
    backbone = config.model.backbone
    kind = ('exact' if backbone.get('gradient') == 'exact' else 'local') if is_local(backbone) else 'end_to_end'
    return kind + ('_checkpointed' if backbone.get('with_cp') else '')


class TrainingStep:
    """Forward and backward of a config's model in one mode, on drawn images and targets, without an optimizer.

    Args:
        config: The config of a detector or segmentor.
        mode: One of :data:`MODES`.
        batch: Images a step.
        size: Height and width of an image in pixels.
        device: Where to run.
        seed: Of the weights and a segmentor's images and targets; a detector's are always the same.
        amp: None for float32, or the floating-point type of automatic mixed precision, which needs a GPU.

    Raises:
        ValueError: An unknown mode, a mode or precision that needs a GPU, or a local or exact mode of a config without
            a local backbone.
    """

    def __init__(
        self,
        config: Config,
        mode: str,
        batch: int,
        size: tuple[int, int],
        device: str = 'cpu',
        seed: int = 0,
        amp: torch.dtype | None = None,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f'unknown mode {mode!r}, choose from {", ".join(MODES)}')
        if device == 'cpu' and (amp is not None or mode == 'end_to_end_offloaded'):
            what = f'mode {mode}' if amp is None else f'mixed precision ({amp})'
            raise ValueError(f'{what} needs a GPU, and there is none')
        init_default_scope(config.get('default_scope', 'mmengine'))
        backbone = mode.removesuffix(HEADS_CHECKPOINTED)
        self._local = backbone.startswith('local')
        exact = backbone.startswith('exact')
        plain = not is_local(config.model.backbone)
        if plain and (self._local or exact):
            kind = config.model.backbone.type
            raise ValueError(f'mode {mode!r}: model.backbone.type={kind!r} is not a local backbone of manpp_mm')
        self._offloaded = mode == 'end_to_end_offloaded'
        self._device = device
        self._amp = amp
        # Models change their config while they are built, and the caller builds from it again.
        model = copy.deepcopy(config.model) if self._local or exact or plain else plain_model(config.model)
        model['backbone'] = dict(model['backbone'], init_cfg=None, with_cp=backbone.endswith('_checkpointed'))
        if exact or self._local:
            model['backbone']['gradient'] = 'exact' if exact else 'local'
        model.pop('pretrained', None)
        if model.get('data_preprocessor', {}).get('size') is not None:
            model['data_preprocessor'] = dict(model['data_preprocessor'], size=size)  # a segmentor pads to it
        torch.manual_seed(seed)
        self.model: nn.Module = MODELS.build(model)
        if device == 'cpu':
            self.model = revert_sync_batchnorm(self.model)
        self.model.to(device)
        with without_init_log():
            self.model.init_weights()
        self.model.train()
        self._scaler = torch.amp.GradScaler(device, enabled=amp is torch.float16)
        if backbone == 'frozen':
            self.model.backbone.requires_grad_(False)
        if self._local:
            self.model.backbone.sync_auxiliary()
            attach(self.model, self._scaler)
        self._spare_heads(config, mode, own_hooks=self._local or exact or plain)
        if config.get('default_scope') == 'mmseg':
            drawn = draw_segmentation(self.model.num_classes, batch, size, seed)
        else:
            head = self.model.roi_head.bbox_head if hasattr(self.model, 'roi_head') else self.model.bbox_head
            head = head[-1] if isinstance(head, nn.ModuleList) else head  # a cascade
            drawn = draw_detection(head.num_classes, batch, size, getattr(self.model, 'with_mask', False))
        self.data = self.model.data_preprocessor(drawn, True)

    def _spare_heads(self, config: Config, mode: str, own_hooks: bool) -> None:
        """Checkpoint modules and take losses early, as the config's hooks and the mode say."""
        modules, heads = [], []
        if own_hooks:
            for hook in config.get('custom_hooks') or []:
                modules += hook.modules if hook.type == 'CheckpointModulesHook' else []
                heads += hook.heads if hook.type == 'EarlyLossHook' else []
        if mode.endswith(HEADS_CHECKPOINTED):
            present = dict(self.model.named_modules())
            modules += [name for head in HEADS if head in present for name in _single(present[head], head)]
            heads += [name for name in EARLY if hasattr(present.get(name), 'loss_by_feat')]
        self._checkpointed = checkpoint_modules(self.model, list(dict.fromkeys(modules)))
        take_losses_early(self.model, list(dict.fromkeys(heads)), self._scaler)

    def run(self) -> None:
        """One forward and backward; gradients are dropped afterwards."""
        saving: AbstractContextManager = nullcontext()
        if self._offloaded:
            saving = torch.autograd.graph.save_on_cpu(pin_memory=True)
        with torch.autocast(self._device, dtype=self._amp, enabled=self._amp is not None), saving:
            loss, _ = self.model.parse_losses(self.model(**self.data, mode='loss'))
        self._scaler.scale(loss).backward()
        self.model.zero_grad(set_to_none=True)
        check_ran(self._checkpointed)

    def kept(self) -> list[torch.Tensor]:
        """What is there before the step: parameters, buffers and inputs."""
        return [*self.model.parameters(), *self.model.buffers(), self.data['inputs']]

    def counts(self) -> StepCounts:
        """Bytes of live tensors of one step beyond parameters, buffers and inputs, operators and synchronisations."""
        with StepCounts(self.kept(), self._device) as counts:
            self.run()
        return counts

    def peak_bytes(self) -> int:
        """Peak bytes of live tensors of one step beyond parameters, buffers and inputs."""
        return self.counts().peak

    def held_at_peak(self, number: int) -> list[Held]:
        """The largest tensors alive at the peak, the largest first."""
        with PeakRecorder(self.model, self.kept(), self._device) as live:
            self.run()
        return live.largest(number)

    def allocated_bytes(self) -> int | None:
        """On a GPU the peak of the caching allocator beyond what is allocated before the step."""
        if self._device == 'cpu':
            return None
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self.run()
        return torch.cuda.max_memory_allocated() - before

    def seconds(self) -> float:
        """Wall time of one step."""
        _synchronize()
        start = time.perf_counter()
        self.run()
        _synchronize()
        return time.perf_counter() - start

    def device_seconds(self) -> float | None:
        """On a GPU the time of one step's kernels and copies, added up."""
        if self._device == 'cpu':
            return None
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            self.run()
            _synchronize()
        kernels = (event for event in profiler.events() if event.device_type == DeviceType.CUDA)
        return sum(kernel.time_range.elapsed_us() for kernel in kernels) / 1e6


def measure(
    config: Config,
    modes: Sequence[str],
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
        modes: Some of :data:`MODES`.
        batch: Images a step.
        size: Height and width of an image in pixels.
        repeats: Timed steps of each mode; 0 measures memory alone.
        device: Where to run.
        seed, amp: See :class:`TrainingStep`.
        progress: Called after each step, ``len(modes) * (1 + repeats)`` times.

    Returns:
        A measurement for each mode: the median of the timed steps, and their largest minus their smallest.
    """
    steps = {mode: TrainingStep(config, mode, batch, size, device, seed, amp) for mode in modes}
    counts: dict[str, StepCounts] = {}
    allocated: dict[str, int | None] = {}
    for mode, step in steps.items():
        if device != 'cpu':
            step.run()  # the allocator, cuDNN and branches of the host's code warm up
        counts[mode], allocated[mode] = step.counts(), step.allocated_bytes()
        progress()
    seconds: dict[str, list[float]] = {mode: [] for mode in modes}
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


def _single(module: nn.Module, name: str) -> list[str]:
    """The name of a module, or those of a cascade's members."""
    return [f'{name}.{member}' for member in range(len(module))] if isinstance(module, nn.ModuleList) else [name]


@contextmanager
def without_init_log() -> Iterator[None]:
    """MMEngine logs three lines for each parameter that it initialises."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    try:
        yield
    finally:
        logger.setLevel(level)


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
