"""A backbone as a row of units, and the local blocks that they form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mmengine.model import ModuleList
from torch import Tensor, nn

from ..local import BlockOutput, Cut, checkpointed
from .ownership import parameters_of
from .parent import Parent
from .stem import StemModule
from .unit import STEM, Layout, Unit


@dataclass
class Block:
    """A local block.

    Attributes:
        units: Its units.
        modules: What holds its buffers: the units' modules, the stem's among the first block's.
        parameters: Its parameters, whether they train or not.
        local_parameters: The same and those of its auxiliary network.
        checked: Whether its output was seen to have the channels and stride that its last unit says.
    """

    units: list[Unit]
    modules: list[nn.Module]
    parameters: list[nn.Parameter]
    local_parameters: list[nn.Parameter]
    checked: bool = False


class Trunk(Parent):
    """What a family of backbones tells about itself, and what follows from it."""

    auxiliary: ModuleList
    cuts: list[Cut]
    out_indices: Sequence[int]
    units_checkpointed: bool
    stem_is_block = False
    """Whether the stem is a local block of its own, and stands before the units in the row."""

    transformer: ClassVar[bool] = False
    """Whether units are as wide as a transformer's: copies of them run at a coarse stride, and their norms do not decay
    where a config is made local (:mod:`manpp_mm.methods`)."""

    small_images: ClassVar[bool] = False
    """Whether the images are a few dozen pixels wide, so that auxiliary networks keep to a fine stride."""

    @property
    def layout(self) -> Layout:
        """How ``x`` between units becomes a map (N, C, H, W)."""
        return Layout()

    @classmethod
    def planning_size(cls, backbone: Mapping) -> tuple[int, int]:
        """Height and width of the images from whose step memory is predicted.

        At stride 32 these are 5 and 11, and a tensor that covers the image has a multiple of 55 elements, as hardly
        another has.

        Args:
            backbone: The backbone's config.
        """
        return (160, 352)

    def units(self) -> list[Unit]:
        """The units in order, made anew from the trunk's modules at each call."""
        raise TypeError(f'{type(self).__name__} must define units()')

    def output_after(self, stage: int, last: bool) -> int | None:
        """``Unit.output`` of a unit: its stage, if it is the last one there and neck and heads take the stage's map."""
        return stage if last and stage in self.out_indices else None

    def stem_parts(self) -> 'list[nn.Module | nn.Parameter]':
        """The modules and parameters before the first unit."""
        raise TypeError(f'{type(self).__name__} must define stem_parts()')

    def run_stem(self, images: Tensor) -> Tensor:
        """Run what comes before the first unit on an image batch (N, 3, H, W)."""
        raise TypeError(f'{type(self).__name__} must define run_stem()')

    def stem_geometry(self) -> tuple[int, int] | None:
        """Channels and stride in pixels of what the stem gives; None: it cannot be a block of its own."""
        return None

    def stages_before(self, cut: Cut) -> int:
        """The ``frozen_stages`` of the parent that freeze what lies before a unit's stage."""
        return cut[0]

    def row(self) -> list[Unit]:
        """What the local blocks are made of: the units, after the stem where that is a block of its own."""
        units = list(self.units())
        if self.stem_is_block:
            geometry = self.stem_geometry()
            assert geometry is not None  # else the cut after the stem was refused
            units.insert(0, Unit(STEM, StemModule(self.stem_parts(), self.run_stem), *geometry))
        return units

    def head_norm_cfg(self) -> Mapping | None:
        """The norm config of auxiliary heads that need one and name none; None: they have to."""
        return None

    def output_modules(self, stage: int) -> list[nn.Module]:
        """The modules between a stage's ``x`` and the map that it gives to neck and heads; they learn with these."""
        return []

    def output_map(self, stage: int, x: Tensor) -> Tensor:
        """The map (N, C, H, W) that a stage gives to neck and heads."""
        return x

    def forget_blocks(self) -> None:
        """Look up the blocks' modules and parameters anew: once an epoch and after loading, not in every step."""
        self._blocks: list[Block] | None = None

    def blocks(self) -> list[Block]:
        """The local blocks."""
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
                networks = self.auxiliary[index : index + 1]
                self._blocks.append(
                    Block(units[a:b], modules, parameters_of(parts), parameters_of([*parts, *networks]))
                )
        return self._blocks

    def copied_units(self) -> list[list[nn.Module]]:
        """For each auxiliary network the modules of the units that its branches copy."""
        modules = {unit.cut: unit.module for block in self.blocks() for unit in block.units}
        return [[modules[place] for place in network.copied] for network in self.auxiliary]

    def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """(copy in a momentum branch, the unit's module that it follows) of all auxiliary networks."""
        pairs = zip(self.auxiliary, self.copied_units(), strict=True)
        return [pair for network, units in pairs for pair in network.branches.momentum_pairs(units)]

    def run_block(self, block: Block, x: Tensor, first: bool) -> BlockOutput:
        """Run a block on what the block before left, or on images if it is the first."""
        return self.run_units(block.units, self.run_stem(x) if first and not self.stem_is_block else x)

    def run_units(self, units: Sequence[Unit], x: Tensor) -> BlockOutput:
        """Run units one after the other; the maps are ``x`` where stages end."""
        features = {}
        for unit in units:
            x = checkpointed(unit.module, x) if self.units_checkpointed else unit.module(x)
            if unit.output is not None:
                features[unit.output] = x
        return BlockOutput(x, features)
