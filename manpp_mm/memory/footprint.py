"""Prediction of memory and work of a training step at any input size, from one step on small images."""

from collections.abc import Iterable, Mapping
from math import ceil, lcm
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ..backbones import LocalBackbone, local_class
from ..backbones.config import local_twin
from ..mode import Mode
from .live_bytes import LiveBytes
from .training_step import TrainingStep

# Not 2: a Faster R-CNN's 2 x 512 regions would have the shape of its head's weights.
BATCH = 3
Probe = tuple[int, tuple[int, int]]
_FIXED, _BATCH, _IMAGE, _AREA, _PAIRS = range(5)


class Footprint(LiveBytes):
    """Live bytes and floating-point operations of a step, split by how they grow with the input.

    - A tensor with the shape of a parameter (a gradient) does not grow.
    - A tensor whose number of elements is a multiple of the small image's positions at stride 32, of those of a pyramid
      or of a Vision Transformer's tokens grows with images and pixels. If it is not a multiple of the images, it
      belongs to a single image and is assumed not to shrink with fewer images.
    - A multiple of the square of the positions (attention over all pairs) grows with images and pixels squared.
    - Any other tensor, such as sampled regions, grows with images only.

    Other growth is not covered, such as attention between parts of the image whose number grows.

    Args:
        step: A step on the probe's images.
        probe: Images, height and width in pixels (see :func:`small_probe`).

    Raises:
        ValueError: The model's preprocessor changes the size of these images.
    """

    def __init__(self, step: TrainingStep, probe: Probe) -> None:
        self._images, size = probe
        if tuple(step.data['inputs'].shape[-2:]) != size:
            raise ValueError(
                f"the model's data_preprocessor resizes the {size} images used to predict memory to "
                f'{tuple(step.data["inputs"].shape[-2:])} pixels'
            )
        super().__init__(step.kept())
        self._size = size
        self._counts = _counts(size)
        self._shapes = {tuple(p.shape) for p in step.model.parameters()}
        self._kinds: dict[int, int] = {}
        self._now = [0, 0, 0, 0, 0]
        self._timeline: list[tuple[int, ...]] = []
        self._flops = [0, 0, 0, 0, 0]
        self._marks: dict[str, int] = {}
        self._work: dict[str, tuple[int, ...]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            tensors = [leaf for leaf in tree_leaves((args, result)) if isinstance(leaf, Tensor)]
            self._flops[max(map(self._kind, tensors))] += count(*args, **(kwargs or {}), out_val=result)
        return result

    def _kind(self, tensor: Tensor) -> int:
        if tuple(tensor.shape) in self._shapes:
            return _FIXED
        number = tensor.numel()
        if not number or all(number % count for count in self._counts):
            return _BATCH
        if any(number % count**2 == 0 for count in self._counts[:2]):
            return _PAIRS
        return _IMAGE if number % self._images else _AREA

    def _allocated(self, key: int, tensor: Tensor, func: Any, change: int) -> None:
        self._now[self._kinds.setdefault(key, self._kind(tensor))] += change
        self._timeline.append(tuple(self._now))

    def _freed(self, key: int, size: int) -> None:
        if key in self._kinds:
            self._now[self._kinds.pop(key)] -= size

    def mark(self, name: str) -> None:
        """Mark this moment with a name; only the first call for a name counts."""
        if name not in self._marks:
            self._marks[name] = len(self._timeline)
            self._timeline.append(tuple(self._now))
            self._work[name] = tuple(self._flops)

    def split(self, tensor: Tensor) -> np.ndarray:
        """Return a tensor's bytes as a vector over the kinds of growth."""
        return np.eye(len(self._now))[self._kind(tensor)] * tensor.numel() * tensor.element_size()

    def at(self, batch: int, size: tuple[int, int]) -> 'TimeLine':
        """Return the live bytes over time for other images.

        Args:
            batch: Images per step.
            size: Height and width in pixels.
        """
        growth = self.growth(batch, size)
        work = {name: float(np.array(flops) @ growth) for name, flops in self._work.items()}
        return TimeLine(np.array(self._timeline) @ growth, self._marks, work)

    def growth(self, batch: int, size: tuple[int, int]) -> np.ndarray:
        """Return the factor by which each kind of tensor grows for other images."""
        images, pixels = batch / self._images, size[0] * size[1] / (self._size[0] * self._size[1])
        return np.array([1, images, max(1, images) * pixels, images * pixels, images * pixels**2])

    def peak_at(self, batch: int, size: tuple[int, int]) -> int:
        """Return the peak of live bytes in addition to parameters, buffers and inputs, for other images."""
        return round(self.at(batch, size).values.max())

    def flops_at(self, batch: int, size: tuple[int, int]) -> float:
        """Return the floating-point operations of a step's convolutions and matrix products, for other images."""
        return float(np.array(self._flops) @ self.growth(batch, size))


class TimeLine:
    """Live bytes after each allocation, with named moments.

    Args:
        values: The bytes.
        marks: Index of each moment.
        work: Floating-point operations until each moment.
    """

    def __init__(self, values: np.ndarray, marks: dict[str, int], work: dict[str, float]) -> None:
        self.values = values
        self._marks = marks
        self._work = work

    def now(self, name: str) -> float:
        """Return the live bytes at a moment."""
        return self.values[self._marks[name]]

    def highest(self, begin: str, end: str) -> float:
        """Return the maximum between two moments."""
        return self.values[self._marks[begin] : self._marks[end] + 1].max()

    def work(self, begin: str, end: str) -> float:
        """Return the floating-point operations between two moments."""
        return self._work[end] - self._work[begin]


def _counts(size: tuple[int, int]) -> list[int]:
    """Return numbers that divide the number of elements of a tensor over the whole image, but of hardly any other."""

    def positions(stride: int) -> int:
        return ceil(size[0] / stride) * ceil(size[1] / stride)

    # Whole pyramids from stride 4 or 8 to 64 or 128, as concatenated by dense heads.
    pyramids = [sum(positions(2**level) for level in range(first, last)) for first in (2, 3) for last in (7, 8)]
    # Patches of 16 pixels with a class token, and the same with one more row (see backbones/vit.py).
    patches = positions(16)
    return [positions(32), patches + 1, patches + ceil(size[1] / 16), *pyramids]


def small_size(config: Config) -> tuple[int, int]:
    """Return height and width of the small images used to predict a config's memory."""
    backbone = config.model.get('backbone') or {}
    family = local_class(config) or local_twin(backbone.get('type'), config.get('default_scope')) or LocalBackbone
    height, width = family.planning_size(backbone)
    divisor = _divisor(config)
    factor = lcm(divisor, 32) // 32  # the preprocessor must not resize them
    return (height * factor, width * factor)


def small_probe(config: Config) -> Probe:
    """Return number and size of the small images used to predict a config's memory."""
    return BATCH, small_size(config)


def probing_step(config: Config, mode: Mode, probe: Probe, amp: bool) -> TrainingStep:
    """Create a step on a probe's images with all regions, on the CPU; with ``amp`` in mixed precision."""
    return TrainingStep(config, mode, *probe, amp=torch.bfloat16 if amp else None, full_regions=True)


def footprint(config: Config, mode: 'str | Mode', amp: bool = False, probe: 'Probe | None' = None) -> Footprint:
    """Run one small step of a config in a mode of :data:`manpp_mm.mode.MODES`, on the CPU.

    Args:
        config: The config of a detector or segmentor.
        mode: The mode.
        amp: Whether to use mixed precision, as in :class:`TrainingStep` on a CPU.
        probe: Images, height and width; by default those of :func:`small_probe`.
    """
    probe = probe or small_probe(config)
    step = probing_step(config, Mode.parse(mode), probe, amp)
    with Footprint(step, probe) as found:
        step.run()
    return found


def padded(config: Config, size: tuple[int, int]) -> tuple[int, int]:
    """Return the padded size of a batch of images; a detector pads to a multiple."""
    divisor = _divisor(config)
    height, width = size
    return ceil(height / divisor) * divisor, ceil(width / divisor) * divisor


def _divisor(config: Config) -> int:
    return (config.model.get('data_preprocessor') or {}).get('pad_size_divisor') or 1


def static_bytes(
    config: Config, parameters: Iterable[torch.nn.Parameter], buffers: Iterable[Tensor], copies: int = 1
) -> int:
    """Return the bytes of parameters, buffers, optimizer state, accumulated gradients and DDP's buckets.

    Args:
        config: The config with the ``optim_wrapper``.
        parameters: The parameters.
        buffers: The buffers.
        copies: Number of copies of both, including averaged ones.

    Raises:
        ValueError: ``optim_wrapper`` sets no optimizer.
    """
    from mmengine.registry import OPTIMIZERS

    parameters = list(parameters)
    wrappers = [config.optim_wrapper, *config.optim_wrapper.values()]
    optimizers = [w['optimizer'] for w in wrappers if isinstance(w, Mapping) and w.get('optimizer') is not None]
    if not optimizers:
        raise ValueError('optim_wrapper sets no optimizer, so the memory of its state cannot be predicted')
    states = 0  # the maximum over several optimizers
    for each in optimizers:
        probe = torch.nn.Parameter(torch.zeros(7))
        optimizer = OPTIMIZERS.build(dict(each, params=[probe]))
        probe.grad = torch.ones(7)
        optimizer.step()
        states = max(states, sum(isinstance(v, Tensor) and v.numel() == 7 for v in optimizer.state[probe].values()))
    accumulates = config.optim_wrapper.get('accumulative_counts', 1) > 1
    buckets = config.get('launcher', 'none') != 'none'  # of DDP
    return (
        copies * sum(t.numel() * t.element_size() for t in (*parameters, *buffers))
        + (states + accumulates + buckets) * sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    )  # fmt: skip


def stepping_bytes(parameters: Iterable[torch.nn.Parameter]) -> int:
    """Return the bytes that an optimizer step adds to parameters and optimizer state: about twice the gradients.

    On a GPU, the ``foreach`` step of an optimizer, PyTorch's default, creates a new tensor for each gradient.
    """
    return 2 * sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
