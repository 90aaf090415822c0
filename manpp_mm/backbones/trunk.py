"""A backbone as a sequence of units, and the local blocks that they form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mmengine.model import ModuleList
from torch import Tensor, nn

from ..local import BlockOutput, Cut, checkpointed
from .ownership import parameters_of
from .parent import Parent
from .stem import StemModule
from .unit import STEM, Layout, Unit

if TYPE_CHECKING:
    from ..auxiliary.network import AuxiliaryNetwork


@dataclass
class Block:
    """A local block.

    Attributes:
        units: Its units.
        modules: The modules with its buffers: those of the units, and of the stem for the first block.
        parameters: Its parameters, whether they train or not.
        local_parameters: Its parameters and those of its auxiliary network, without those of ``laterals``.
        laterals: With ``lateral_gradient``, the units at the ends of stages that train, by stage.
        checked: Whether channels and stride of its output were checked against its last unit.
    """

    units: list[Unit]
    modules: list[nn.Module]
    parameters: list[nn.Parameter]
    local_parameters: list[nn.Parameter]
    laterals: dict[int, nn.Module]
    checked: bool = False


class Trunk(Parent):
    """The description of a family of backbones, and the blocks that follow from it."""

    auxiliary: ModuleList
    cuts: list[Cut]
    out_indices: Sequence[int]
    units_checkpointed: bool
    lateral_gradient: bool
    share: range | None
    stem_is_block = False
    """Whether the stem is a separate local block, and comes before the units in the row."""

    transformer: ClassVar[bool] = False
    """Whether units are as wide as a transformer's. :mod:`manpp_mm.methods` then adds auxiliary networks at a coarse
    stride, whose norms have no weight decay."""

    small_images: ClassVar[bool] = False
    """Whether the images are a few dozen pixels wide, so that auxiliary networks keep a fine stride."""

    @property
    def layout(self) -> Layout:
        """The conversion of ``x`` between units to a map (N, C, H, W)."""
        return Layout()

    @classmethod
    def planning_size(cls, backbone: Mapping) -> tuple[int, int]:
        """Return height and width of the small images used to predict memory.

        At stride 32, these are 5 and 11: the number of elements of a tensor over the image is a multiple of 55, unlike
        that of hardly any other tensor.

        Args:
            backbone: The backbone's config.
        """
        return (160, 352)

    def units(self) -> list[Unit]:
        """Return the units in order, newly created from the trunk's modules at each call."""
        raise TypeError(f'{type(self).__name__} must define units()')

    def output_after(self, stage: int, last: bool) -> int | None:
        """Return ``Unit.output`` of a unit: its stage if it is the last there and the stage is in ``out_indices``."""
        return stage if last and stage in self.out_indices else None

    def stem_parts(self) -> 'list[nn.Module | nn.Parameter]':
        """Return the modules and parameters before the first unit."""
        raise TypeError(f'{type(self).__name__} must define stem_parts()')

    def run_stem(self, images: Tensor) -> Tensor:
        """Run the part before the first unit on an image batch (N, 3, H, W)."""
        raise TypeError(f'{type(self).__name__} must define run_stem()')

    def stem_geometry(self) -> tuple[int, int] | None:
        """Return channels and stride in pixels of the stem's output; None if it cannot be a separate block."""
        return None

    def stages_before(self, cut: Cut) -> int:
        """Return the ``frozen_stages`` of the parent that freezes everything before a unit's stage."""
        return cut[0]

    def row(self) -> list[Unit]:
        """Return the units that form the local blocks, starting with the stem if that is a separate block."""
        units = list(self.units())
        if self.stem_is_block:
            geometry = self.stem_geometry()
            assert geometry is not None  # otherwise the cut after the stem was refused
            units.insert(0, Unit(STEM, StemModule(self.stem_parts(), self.run_stem), *geometry))
        return units

    def head_norm_cfg(self) -> Mapping | None:
        """Return the norm config for auxiliary heads that need one but set none; None if they must set it."""
        return None

    def output_modules(self, stage: int) -> list[nn.Module]:
        """Return the modules between a stage's ``x`` and its map for neck and heads, which learn with these."""
        return []

    def output_map(self, stage: int, x: Tensor) -> Tensor:
        """Return the map (N, C, H, W) of a stage for neck and heads."""
        return x

    def forget_blocks(self) -> None:
        """Drop the cached blocks, once per epoch and after loading; the next step looks them up again."""
        self._blocks: list[Block] | None = None

    def blocks(self) -> list[Block]:
        """Return the local blocks."""
        if self._blocks is None:
            units = self.row()
            places = [unit.cut for unit in units]
            starts = [0, *(places.index(cut) + 1 for cut in self.cuts)]
            self._blocks = []
            for index, (a, b) in enumerate(zip(starts, [*starts[1:], None], strict=True)):
                parts: list[nn.Module | nn.Parameter] = [unit.module for unit in units[a:b]]
                if index == 0 and not self.stem_is_block:
                    parts = [*self.stem_parts(), *parts]
                modules = [part for part in parts if isinstance(part, nn.Module)]
                laterals = {
                    unit.output: unit.module
                    for unit in units[a:b]
                    if self.lateral_gradient
                    and unit.output is not None
                    and any(p.requires_grad for p in unit.module.parameters())
                }
                by_task = {id(module) for module in laterals.values()}
                by_loss = [part for part in parts if id(part) not in by_task]
                by_loss += self.auxiliary[index : index + 1]
                self._blocks.append(Block(units[a:b], modules, parameters_of(parts), parameters_of(by_loss), laterals))
        return self._blocks

    def copied_units(self) -> list[list[nn.Module]]:
        """Return for each auxiliary network the modules of the units that its branches copy."""
        modules = {unit.cut: unit.module for block in self.blocks() for unit in block.units}
        return [[modules[place] for place in network.copied] for network in self.auxiliary]

    def trained_networks(self) -> 'dict[int, tuple[AuxiliaryNetwork, list[nn.Module]]]':
        """Return the auxiliary networks that this process trains and their copied units, by the number of the block."""
        pairs = enumerate(zip(self.auxiliary, self.copied_units(), strict=True))
        return {index: pair for index, pair in pairs if self.share is None or index in self.share}

    def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return pairs (copy in a momentum branch, module of the unit that it follows) of the networks that train."""
        pairs = self.trained_networks().values()
        return [pair for network, units in pairs for pair in network.branches.momentum_pairs(units)]

    def run_block(self, block: Block, x: Tensor, first: bool, inputs: 'dict[int, Tensor] | None' = None) -> BlockOutput:
        """Run a block on the output of the previous block, or on images if it is the first; see :meth:`run_units`."""
        return self.run_units(block.units, self.run_stem(x) if first and not self.stem_is_block else x, inputs)

    def run_units(self, units: Sequence[Unit], x: Tensor, inputs: 'dict[int, Tensor] | None' = None) -> BlockOutput:
        """Run units in sequence; the maps are ``x`` at the ends of stages.

        Args:
            units: The units.
            x: The input of the first one.
            inputs: Receives the detached input of the unit that ends a stage, by stage; None keeps none.
        """
        features = {}
        for unit in units:
            if inputs is not None and unit.output is not None:
                inputs[unit.output] = x.detach()
            x = checkpointed(unit.module, x) if self.units_checkpointed else unit.module(x)
            if unit.output is not None:
                features[unit.output] = x
        return BlockOutput(x, features)
