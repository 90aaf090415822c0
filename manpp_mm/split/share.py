"""The part of a model and its optimizer that one process of a split training holds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from ..backbones import LocalBackbone, find_local_backbone
from ..local import BlockOutput


@contextmanager
def last_blocks(backbone: LocalBackbone, share: range, given: BlockOutput) -> Iterator[None]:
    """Let forwards start with the output of the block before ``share``, which ends with the last block."""
    before = backbone.share
    backbone.share, backbone.received = share, given
    try:
        yield
    finally:
        backbone.share, backbone.received = before, None


@dataclass
class ModelState:
    """Values that a process owns.

    Attributes:
        tensors: Parameters and buffers by name.
        optimizer: The optimizer's state of the parameters, by name.
    """

    tensors: dict[str, Tensor]
    optimizer: dict[str, dict[str, Any]]


class Share:
    """The parameters and buffers of a model by the process that trains them.

    Args:
        model: The model; all values are present.
        optimizer: Its only optimizer.
        division: The local blocks of each process. Neck, heads and all else belong to the last one.
        own: The number of this process.
    """

    def __init__(self, model: BaseModel, optimizer: torch.optim.Optimizer, division: Sequence[range], own: int) -> None:
        self.model = model
        self.optimizer = optimizer
        self.division = division
        self.own = own
        self.backbone = find_local_backbone(model)
        self._tensors = dict(model.named_parameters()) | {
            name: buffer for name, buffer in model.named_buffers() if name in model.state_dict()
        }
        owners = {id(tensor): process for process, part in enumerate(division) for tensor in self._held_by(part)}
        self._owners = {name: owners.get(id(t), len(division) - 1) for name, t in self._tensors.items()}
        self._trains = {name: p.requires_grad for name, p in model.named_parameters()}
        self._followed: list[nn.Parameter] = [p for ps in self.followed(own).values() for p in ps]

    def _held_by(self, part: range) -> list[Tensor]:
        found: list[Tensor] = []
        for number in part:
            block = self.backbone.blocks()[number]
            modules = [*block.modules, *self.backbone.auxiliary[number : number + 1]]
            found += [*block.parameters, *(t for m in modules for t in [*m.parameters(), *m.buffers()])]
        return found

    def followed(self, process: int) -> dict[int, list[nn.Parameter]]:
        """Return the parameters of other processes that a process's momentum branches follow, by their process."""
        found: dict[int, list[nn.Parameter]] = {}
        names = {id(tensor): name for name, tensor in self._tensors.items()}
        copied = self.backbone.copied_units()
        for number in self.division[process]:
            if number >= len(self.backbone.auxiliary):
                continue
            for _, unit in self.backbone.auxiliary[number].branches.momentum_pairs(copied[number]):
                for parameter in unit.parameters():
                    owner = self._owners[names[id(parameter)]]
                    held = found.setdefault(owner, [])
                    if owner != process and all(parameter is not other for other in held):
                        held.append(parameter)
        return {owner: parameters for owner, parameters in found.items() if parameters}

    def keep_own(self) -> None:
        """Free the values of other processes, except those that momentum branches follow."""
        kept = {id(parameter) for parameter in self._followed}
        for name, tensor in self._tensors.items():
            if self._owners[name] == self.own:
                continue
            self.optimizer.state.pop(tensor, None)
            if name in self._trains:
                tensor.requires_grad_(False)
                tensor.grad = None
            if id(tensor) not in kept:
                tensor.data = tensor.new_empty(0)
        self.backbone.share = self.division[self.own]
        self.backbone.forget_blocks()

    def values(self) -> list[Tensor]:
        """Return the parameters and buffers that this process holds, and its optimizer's state."""
        states = [state for parameter, state in self.optimizer.state.items()]
        return [*self._tensors.values(), *(v for state in states for v in state.values() if isinstance(v, Tensor))]

    def own_state(self) -> ModelState:
        """Return the values that this process owns, on the CPU."""
        own = {name: tensor for name, tensor in self._tensors.items() if self._owners[name] == self.own}
        states = {name: self.optimizer.state[t] for name, t in own.items() if t in self.optimizer.state}
        return ModelState(
            tensors={name: tensor.detach().cpu() for name, tensor in own.items()},
            optimizer={name: {k: _on_cpu(v) for k, v in state.items()} for name, state in states.items()},
        )

    def fill(self, states: Sequence[ModelState]) -> None:
        """Make the model whole with the states of the other processes."""
        for state in states:
            for name, value in state.tensors.items():
                tensor = self._tensors[name]
                tensor.data = value.to(tensor.device)
                if name in self._trains:
                    tensor.requires_grad_(self._trains[name])
            for name, values in state.optimizer.items():
                self.optimizer.state[self._tensors[name]] = values
        self.backbone.share = None
        self.backbone.forget_blocks()


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value
