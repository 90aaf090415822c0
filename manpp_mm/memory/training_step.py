"""One training step of a config in a mode, to be measured."""

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
    """Forward and backward of a config's model in one mode, on drawn images and targets, without an optimizer.

    Args:
        config: The config of a detector or segmentor.
        mode: One of :data:`manpp_mm.mode.MODES`, or its name.
        batch: Images a step.
        size: Height and width of an image in pixels.
        device: Where to run.
        seed: Of the weights and a segmentor's images and targets; a detector's are always the same.
        amp: None for float32, or the floating-point type of automatic mixed precision: float16 needs a GPU, with
            bfloat16 a CPU casts what a GPU would cast (:class:`GpuCasts`).
        full_regions: Whether a two-stage detector's head sees as many regions as it may come to (:func:`fill_regions`).

    Raises:
        ValueError: An unknown mode, a mode or precision that needs a GPU, or a local or exact mode of a config without
            a local backbone.
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
            raise ValueError(f'{what} needs a GPU, and there is none')
        init_default_scope(config.get('default_scope', 'mmengine'))
        plain = local_class(config) is None
        if plain and mode.cut:
            kind = config.model.backbone.type
            raise ValueError(f'mode {str(mode)!r}: model.backbone.type={kind!r} is not a local backbone of manpp_mm')
        self._offloaded = mode.offloaded
        self._device = device
        self._amp = amp
        # Models change their config while they are built, and the caller builds from it again.
        model = copy.deepcopy(config.model) if mode.cut or plain else plain_model(config)
        model = _without_weights(model)
        kind = named_class(model['backbone']['type'], 'model', config.get('default_scope'))
        if mode.units_checkpointed and kind is not None and 'with_cp' not in constructor_parameters(kind):
            raise ValueError(f'mode {mode}: {kind.__name__} cannot checkpoint its units by itself; its local twin can')
        if mode.units_checkpointed or model['backbone'].get('with_cp'):
            model['backbone']['with_cp'] = mode.units_checkpointed
        if mode.cut:
            model['backbone']['gradient'] = mode.backbone
        # MMEngine's Runner takes a preprocessor from the top level, too.
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
        """The config's hooks that change the model. Of a local config its plain twin is measured without them."""
        scope = config.get('default_scope')
        entries = [*(config.get('custom_hooks') or []), *filter(None, (config.get('default_hooks') or {}).values())]
        found = [(named_class(hook['type'], 'hook', scope), copy.deepcopy(hook)) for hook in entries]
        return [
            HOOKS.build({key: value for key, value in hook.items() if key != 'priority'})  # the Runner's, as there
            for kind, hook in found
            if kind is not None and issubclass(kind, ModelHook)
        ]

    def _sparing_hooks(self, mode: Mode) -> list[ModelHook]:
        """What a mode takes early and checkpoints of neck and heads, where the config's own hooks do not."""
        heads = early_heads(self.model) if mode.early_loss else []
        if mode.early_loss and not mode.heads_spared and not heads:
            raise ValueError(f'mode {mode}: {type(self.model).__name__} has no head whose loss could be taken early')
        modules = spared_modules(self.model) if mode.heads_spared else []
        for hook in self._hooks:
            if isinstance(hook, CheckpointModulesHook):
                modules = without_meant(modules, hook.modules)
            elif isinstance(hook, EarlyLossHook):
                heads = [name for name in heads if name not in hook.heads]
        return [*([CheckpointModulesHook(modules)] if modules else []), *([EarlyLossHook(heads)] if heads else [])]

    def run(self) -> None:
        """One forward and backward; gradients are dropped afterwards."""
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


_RESIZING = ('BatchFixedSizePad', 'BatchSyncRandomResize', 'BatchResize')
"""What gives a batch of MMDetection's another size than its images."""


def _without_weights(value: Any) -> Any:
    """A model's config that reads no weights, those of a part of it included."""
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
    # PVT's names a checkpoint alone.
    return any(
        isinstance(each, Mapping) and (each.get('type') == 'Pretrained' or 'checkpoint' in each) for each in entries
    )


def _of_size(preprocessor: Mapping, size: tuple[int, int]) -> dict:
    """A preprocessor that leaves images of a size as they are, but for padding to its divisor."""
    found = dict(preprocessor)
    if found.get('size') is not None:
        found['size'] = size  # a segmentor pads to it
    if isinstance(found.get('batch_augments'), list):  # MMPretrain's is a dict, and keeps the size
        found['batch_augments'] = [each for each in found['batch_augments'] if kind_of(each) not in _RESIZING]
    return found


def _optim_wrapper(model: nn.Module, amp: torch.dtype | None) -> OptimWrapper:
    """What hooks are told steps the model; it never steps here."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    if amp is torch.float16:
        return AmpOptimWrapper(loss_scale='dynamic', dtype='float16', optimizer=optimizer)
    return OptimWrapper(optimizer)


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
