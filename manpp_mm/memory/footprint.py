"""Memory and work of a training step at any input size, from one step on small images."""

from collections.abc import Iterable
from math import ceil
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
_FIXED, _BATCH, _AREA = range(3)


class Footprint(LiveBytes):
    """Live bytes and floating-point operations of a step, split by how they grow with the input.

    A tensor of a parameter's shape (a gradient) does not grow; one whose elements are a multiple of the small image's
    sides, or of a pyramid's positions over it, grows with images and pixels; any other (sampled regions, say) with
    images alone. What grows otherwise, attention over all pairs of pixels, say, is not covered.

    Args:
        step: A step on :data:`BATCH` images of ``size``.
        size: Their height and width in pixels, multiples of 32 (see :func:`small_size`).

    Raises:
        ValueError: The model's preprocessor pads them to another size.
    """

    def __init__(self, step: TrainingStep, size: tuple[int, int]) -> None:
        if tuple(step.data['inputs'].shape[-2:]) != size:
            raise ValueError(
                'memory is predicted from images whose sides are multiples of 32: '
                'model.data_preprocessor.pad_size_divisor must divide 32'
            )
        super().__init__(step.kept())
        self._size = size
        self._counts = _counts(size)
        self._shapes = {tuple(p.shape) for p in step.model.parameters()}
        self._kinds: dict[int, int] = {}
        self._now = [0, 0, 0]
        self._timeline: list[tuple[int, ...]] = []
        self._flops = [0, 0, 0]
        self._marks: dict[str, int] = {}

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
        return _AREA if number and any(number % count == 0 for count in self._counts) else _BATCH

    def _allocated(self, key: int, tensor: Tensor, func: Any, change: int) -> None:
        self._now[self._kinds.setdefault(key, self._kind(tensor))] += change
        self._timeline.append(tuple(self._now))

    def _freed(self, key: int, size: int) -> None:
        if key in self._kinds:
            self._now[self._kinds.pop(key)] -= size

    def mark(self, name: str) -> None:
        """Name this moment; only the first time counts."""
        if name not in self._marks:
            self._marks[name] = len(self._timeline)
            self._timeline.append(tuple(self._now))

    def at(self, batch: int, size: tuple[int, int]) -> 'TimeLine':
        """The bytes alive over time for other images.

        Args:
            batch: Images a step.
            size: Height and width in pixels.
        """
        return TimeLine(np.array(self._timeline) @ self._growth(batch, size), self._marks)

    def _growth(self, batch: int, size: tuple[int, int]) -> np.ndarray:
        pixels = batch * size[0] * size[1] / (BATCH * self._size[0] * self._size[1])
        return np.array([1, batch / BATCH, pixels])

    def peak_at(self, batch: int, size: tuple[int, int]) -> int:
        """The peak of live bytes beyond parameters, buffers and inputs, for other images."""
        return round(self.at(batch, size).values.max())

    def flops_at(self, batch: int, size: tuple[int, int]) -> float:
        """Floating-point operations of a step of convolutions and matrix products, for other images."""
        return float(np.array(self._flops) @ self._growth(batch, size))


class TimeLine:
    """Bytes alive after each allocation, with named moments.

    Args:
        values: The bytes.
        marks: Index of each moment.
    """

    def __init__(self, values: np.ndarray, marks: dict[str, int]) -> None:
        self.values = values
        self._marks = marks

    def now(self, name: str) -> float:
        """Bytes alive at a moment."""
        return self.values[self._marks[name]]

    def highest(self, begin: str, end: str) -> float:
        """The most between two moments."""
        return self.values[self._marks[begin] : self._marks[end] + 1].max()


def _counts(size: tuple[int, int]) -> list[int]:
    """Numbers of which a tensor over the whole image has a multiple of elements, and hardly another has."""

    def positions(stride: int) -> int:
        return ceil(size[0] / stride) * ceil(size[1] / stride)

    # Whole pyramids from stride 4 or 8 to 64 or 128, as dense heads join them.
    pyramids = [sum(positions(2**level) for level in range(first, last)) for first in (2, 3) for last in (7, 8)]
    return [positions(32), *pyramids]


def small_size(config: Config) -> tuple[int, int]:
    """Height and width of the images from whose step a config's memory is predicted."""
    backbone = config.model.get('backbone') or {}
    family = local_class(config) or local_twin(backbone.get('type'), config.get('default_scope')) or LocalBackbone
    return family.planning_size(backbone)


def footprint(config: Config, mode: 'str | Mode') -> Footprint:
    """Take one small step of a config in a mode of :data:`manpp_mm.mode.MODES`, on the CPU."""
    size = small_size(config)
    step = TrainingStep(config, mode, BATCH, size)
    with Footprint(step, size) as found:
        step.run()
    return found


def padded(config: Config, size: tuple[int, int]) -> tuple[int, int]:
    """The size of a batch whose images have a size: a detector pads to a multiple."""
    divisor = config.model.get('data_preprocessor', {}).get('pad_size_divisor') or 1
    return tuple(ceil(side / divisor) * divisor for side in size)


def static_bytes(config: Config, parameters: Iterable[torch.nn.Parameter], buffers: Iterable[Tensor]) -> int:
    """Bytes of parameters, buffers and optimizer state, and of the gradients that accumulation keeps between steps."""
    from mmengine.registry import OPTIMIZERS

    parameters = list(parameters)
    probe = torch.nn.Parameter(torch.zeros(7))
    optimizer = OPTIMIZERS.build(dict(config.optim_wrapper.optimizer, params=[probe]))
    probe.grad = torch.ones(7)
    optimizer.step()
    states = sum(isinstance(v, Tensor) and v.numel() == 7 for v in optimizer.state[probe].values())
    accumulates = config.optim_wrapper.get('accumulative_counts', 1) > 1
    return (
        sum(t.numel() * t.element_size() for t in (*parameters, *buffers))
        + (states + accumulates) * sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    )  # fmt: skip
