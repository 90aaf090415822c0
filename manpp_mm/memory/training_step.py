"""A training step of a config in a mode, for measurements."""

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import HOOKS, MODELS, init_default_scope
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ..arguments import constructor_parameters
from ..backbones import local_class, plain_model
from ..hooks import CheckpointModulesHook, EarlyLossHook, LocalLearningHook
from ..hooks.model_hook import ModelHook
from ..hooks.replaced_method import without_meant
from ..hooks.sparing import early_heads, spared_modules
from ..mode import Mode
from ..registered import kind_of, named_class
from .counts import StepCounts
from .drawn import drawn_batch
from .full_regions import fill_regions
from .gpu_casts import GpuCasts
from .live_bytes import Held, PeakRecorder


class TrainingStep:
    """Forward and backward of a config's model in one mode, on random images and targets, without an optimizer.

    Args:
        config: The config of a detector or segmentor.
        mode: One of :data:`manpp_mm.mode.MODES`, or its name.
        batch: Images per step.
        size: Height and width of an image in pixels.
        device: Device to run on.
        seed: Seed for the weights and for a segmentor's images and targets; a detector's are always the same.
        amp: None for float32, or the floating-point type of automatic mixed precision. float16 needs a GPU; with
            bfloat16, a CPU makes the same casts as a GPU (:class:`GpuCasts`).
        full_regions: Whether a two-stage detector's head gets the maximum number of regions (:func:`fill_regions`).

    Raises:
        ValueError: The mode is unknown, mode or precision needs a GPU, or the mode is local or exact but the config has
            no local backbone.
    """

    def __init__(
        self,
        config: Config,
        mode: 'str | Mode',
        batch: int,
        size: tuple[int, int],
        device: str = 'cpu',
        seed: int = 0,
        amp: torch.dtype | None = None,
        full_regions: bool = False,
    ) -> None:
        mode = Mode.parse(mode)
        if device == 'cpu' and (amp is torch.float16 or mode.offloaded):
            what = f'mode {mode}' if mode.offloaded else f'mixed precision ({amp})'
            raise ValueError(f'{what} needs a GPU, but there is none')
        init_default_scope(config.get('default_scope', 'mmengine'))
        plain = local_class(config) is None
        if plain and mode.cut:
            kind = config.model.backbone.type
            raise ValueError(f'mode {str(mode)!r}: model.backbone.type={kind!r} is not a local backbone of manpp_mm')
        self._offloaded = mode.offloaded
        self._device = device
        self._amp = amp
        # Building a model changes its config, and the caller builds from it again.
        model = copy.deepcopy(config.model) if mode.cut or plain else plain_model(config)
        model = _without_weights(model)
        kind = named_class(model['backbone']['type'], 'model', config.get('default_scope'))
        if mode.units_checkpointed and kind is not None and 'with_cp' not in constructor_parameters(kind):
            raise ValueError(f'mode {mode}: {kind.__name__} cannot checkpoint its units by itself; use its local class')
        if mode.units_checkpointed or model['backbone'].get('with_cp'):
            model['backbone']['with_cp'] = mode.units_checkpointed
        if mode.cut:
            model['backbone']['gradient'] = mode.backbone
        # MMEngine's Runner also takes a preprocessor from the top level.
        preprocessor = model.get('data_preprocessor') or copy.deepcopy(config.get('data_preprocessor')) or {}
        model['data_preprocessor'] = _of_size(preprocessor, size)
        torch.manual_seed(seed)
        self.model: BaseModel = MODELS.build(model)
        if device == 'cpu':
            self.model = revert_sync_batchnorm(self.model)
        self.model.to(device)
        with without_init_log():
            self.model.init_weights()
        self.model.train()
        if full_regions:
            fill_regions(self.model)
        if mode.frozen:
            self.model.backbone.requires_grad_(False)
        self._optim_wrapper = _optim_wrapper(self.model, amp)
        self._scaler = getattr(self._optim_wrapper, 'loss_scaler', None)
        self._hooks = self._own_hooks(config) if mode.cut or plain else []
        if mode.local and not any(isinstance(hook, LocalLearningHook) for hook in self._hooks):
            self._hooks.append(LocalLearningHook())
        self._hooks += self._sparing_hooks(mode)
        for hook in self._hooks:
            hook.apply(self.model, self._optim_wrapper)
        drawn = drawn_batch(self.model, config.get('default_scope'), batch, size, seed)
        self.data = self.model.data_preprocessor(drawn, True)

    @staticmethod
    def _own_hooks(config: Config) -> list[ModelHook]:
        """Return the config's hooks that change the model; a local config's plain twin is measured without them."""
        scope = config.get('default_scope')
        entries = [*(config.get('custom_hooks') or []), *filter(None, (config.get('default_hooks') or {}).values())]
        found = [(named_class(hook['type'], 'hook', scope), copy.deepcopy(hook)) for hook in entries]
        return [
            HOOKS.build({key: value for key, value in hook.items() if key != 'priority'})  # read by the Runner
            for kind, hook in found
            if kind is not None and issubclass(kind, ModelHook)
        ]

    def _sparing_hooks(self, mode: Mode) -> list[ModelHook]:
        """Return hooks for a mode's early losses and checkpointed modules that the config's own hooks do not cover."""
        heads = early_heads(self.model) if mode.early_loss else []
        if mode.early_loss and not mode.heads_spared and not heads:
            raise ValueError(f'mode {mode}: {type(self.model).__name__} has no head that supports an early loss')
        modules = spared_modules(self.model) if mode.heads_spared else []
        for hook in self._hooks:
            if isinstance(hook, CheckpointModulesHook):
                modules = without_meant(modules, hook.modules)
            elif isinstance(hook, EarlyLossHook):
                heads = [name for name in heads if name not in hook.heads]
        return [*([CheckpointModulesHook(modules)] if modules else []), *([EarlyLossHook(heads)] if heads else [])]

    def run(self) -> None:
        """Run one forward and backward pass and drop the gradients."""
        with ExitStack() as stack:
            if self._amp is not None:
                stack.enter_context(torch.autocast(self._device, dtype=self._amp))
                if self._device == 'cpu':
                    stack.enter_context(GpuCasts())
            if self._offloaded:
                stack.enter_context(torch.autograd.graph.save_on_cpu(pin_memory=True))
            loss, _ = self.model.parse_losses(self.model(**self.data, mode='loss'))
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()
        self.model.zero_grad(set_to_none=True)
        for hook in self._hooks:
            if isinstance(hook, CheckpointModulesHook):
                hook.check_ran()

    def kept(self) -> list[torch.Tensor]:
        """Return the tensors that exist before the step: parameters, buffers and inputs."""
        return [*self.model.parameters(), *self.model.buffers(), self.data['inputs']]

    def counts(self) -> StepCounts:
        """Count live bytes (without parameters, buffers and inputs), operators and synchronizations of one step."""
        with StepCounts(self.kept(), self._device) as counts:
            self.run()
        return counts

    def peak_bytes(self) -> int:
        """Return the peak of live bytes of one step in addition to parameters, buffers and inputs."""
        return self.counts().peak

    def held_at_peak(self, number: int) -> list[Held]:
        """Return the largest tensors alive at the peak, in descending order."""
        with PeakRecorder(self.model, self.kept(), self._device) as live:
            self.run()
        return live.largest(number)

    def allocated_bytes(self) -> int | None:
        """Return the peak of the caching allocator in addition to what was allocated before, None on a CPU."""
        if self._device == 'cpu':
            return None
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self.run()
        return torch.cuda.max_memory_allocated() - before

    def seconds(self) -> float:
        """Return the wall time of one step."""
        _synchronize()
        start = time.perf_counter()
        self.run()
        _synchronize()
        return time.perf_counter() - start

    def device_seconds(self) -> float | None:
        """Return the total time of one step's kernels and copies, None on a CPU."""
        if self._device == 'cpu':
            return None
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            self.run()
            _synchronize()
        kernels = (event for event in profiler.events() if event.device_type == DeviceType.CUDA)
        return sum(kernel.time_range.elapsed_us() for kernel in kernels) / 1e6


_RESIZING = ('BatchFixedSizePad', 'BatchSyncRandomResize', 'BatchResize')
"""Augmentations of MMDetection that change the size of a batch."""


def _without_weights(value: Any) -> Any:
    """Return a model's config without any pretrained weights."""
    if isinstance(value, dict):
        return type(value)(
            {
                key: None if key == 'init_cfg' and _reads_weights(item) else _without_weights(item)
                for key, item in value.items()
                if key != 'pretrained'
            }
        )
    return type(value)(map(_without_weights, value)) if isinstance(value, (list, tuple)) else value


def _reads_weights(init_cfg: Any) -> bool:
    entries = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    # PVT's init_cfg has only a checkpoint.
    return any(
        isinstance(each, Mapping) and (each.get('type') == 'Pretrained' or 'checkpoint' in each) for each in entries
    )


def _of_size(preprocessor: Mapping, size: tuple[int, int]) -> dict:
    """Return a preprocessor that does not resize images of a size, except for padding to its divisor."""
    found = dict(preprocessor)
    if found.get('size') is not None:
        found['size'] = size  # a segmentor pads to this size
    if isinstance(found.get('batch_augments'), list):  # MMPretrain's is a dict, and keeps the size
        found['batch_augments'] = [each for each in found['batch_augments'] if kind_of(each) not in _RESIZING]
    return found


def _optim_wrapper(model: nn.Module, amp: torch.dtype | None) -> OptimWrapper:
    """Return the optimizer wrapper that hooks receive; it never steps here."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    if amp is torch.float16:
        return AmpOptimWrapper(loss_scale='dynamic', dtype='float16', optimizer=optimizer)
    return OptimWrapper(optimizer)


@contextmanager
def without_init_log() -> Iterator[None]:
    """Silence MMEngine's log, which has three lines for each initialized parameter."""
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
