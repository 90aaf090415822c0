"""Where to cut: a dynamic programme over what each unit and the auxiliary network after it keep and hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..local import Cut


@dataclass
class UnitMemory:
    """What one unit and the auxiliary network after it take, in bytes at the planned input.

    Attributes:
        cut: The unit.
        before: Alive where it starts, gradients apart: its input and the features kept for the neck.
        kept: What forward keeps for backward, the output included.
        forward: Most alive in forward, from the unit's start.
        auxiliary: Most that forward and backward of the auxiliary network (after the last unit: of neck and heads) add
            to it.
        backward: Most that backward adds to what is kept, the auxiliary network's gradients apart.
        gradients: Of the unit's parameters.
        auxiliary_gradients: Of the auxiliary network's.
        static: Parameters, buffers and optimizer state of the auxiliary network.
    """

    cut: Cut
    before: float
    kept: float
    forward: float
    auxiliary: float
    backward: float
    gradients: int
    auxiliary_gradients: int
    static: int


@dataclass
class Plan:
    """Cuts and what they are predicted to need.

    Attributes:
        cuts: The cuts.
        blocks: Units of each local block from the first unit that trains on, and the bytes alive at its peak.
        peak_bytes: The highest of them.
        auxiliary_bytes: Parameters, buffers and optimizer state of the auxiliary networks.
    """

    cuts: list[Cut]
    blocks: list[tuple[list[Cut], int]]
    peak_bytes: int
    auxiliary_bytes: int

    def table(self, static: int) -> str:
        """The plan in lines: block, units, predicted MB.

        Args:
            static: Bytes of what is there before a step, without auxiliary networks.
        """
        lines = [f'{"block":<8}{"units (stage, unit)":<28}{"number":>7}{"peak MB":>10}']
        for index, (units, peak) in enumerate(self.blocks):
            words = str(units[0]) if len(units) == 1 else f'{units[0]} to {units[-1]}'
            lines.append(f'{index:<8}{words:<28}{len(units):>7}{peak / 1e6:>10.0f}')
        before = static + self.auxiliary_bytes
        lines.append(
            f'cuts={self.cuts}: {self.peak_bytes / 1e6:.0f} MB at the peak, and {before / 1e6:.0f} MB of parameters, '
            'optimizer state and inputs'
        )
        return '\n'.join(lines)


def plans(units: Sequence[UnitMemory]) -> list[Plan]:
    """The plan with the lowest predicted peak for each number of blocks that can be had, one block first.

    Args:
        units: A model's, from the first unit that trains on.
    """
    number = len(units)
    blocks = [[_block(units[a : b + 1]) if b >= a else 0.0 for b in range(number)] for a in range(number)]
    before = [unit.before + sum(u.gradients for u in units[:a]) for a, unit in enumerate(units)]
    found = []
    # For each unit that a block may start with: (peak so far, gradients of auxiliary networks so far, cuts).
    states: dict[int, list[tuple[float, int, tuple[int, ...]]]] = {0: [(0.0, 0, ())]}
    while states:
        finished = [
            (max(peak, before[a] + kept + blocks[a][number - 1]), cuts)
            for a, frontier in states.items()
            for peak, kept, cuts in frontier
        ]
        found.append(_plan(units, min(finished)[1], blocks, before))
        following: dict[int, list] = {}
        for a, frontier in states.items():
            for b in range(a, number - 1):
                following.setdefault(b + 1, []).extend(
                    (max(peak, before[a] + kept + blocks[a][b]), kept + units[b].auxiliary_gradients, (*cuts, b))
                    for peak, kept, cuts in frontier
                )
        states = {start: _undominated(frontier) for start, frontier in following.items()}
    return found


def _block(units: Sequence[UnitMemory]) -> float:
    """The most alive while the units of one block learn, beyond what was there before."""
    highest = kept = 0.0
    for unit in units:
        highest = max(highest, kept + unit.forward)
        kept += unit.kept
    end = units[-1]
    highest = max(highest, kept + end.auxiliary)
    held = end.auxiliary_gradients
    for unit in reversed(units):
        highest = max(highest, kept + held + unit.backward)
        kept -= unit.kept
        held += unit.gradients
    return highest


def _plan(units: Sequence[UnitMemory], cuts: tuple[int, ...], blocks: list[list[float]], before: list[float]) -> Plan:
    kept = 0
    parts = []
    for a, b in pairwise([-1, *cuts, len(units) - 1]):
        names = [unit.cut for unit in units[a + 1 : b + 1]]
        parts.append((names, round(before[a + 1] + kept + blocks[a + 1][b])))
        kept += units[b].auxiliary_gradients
    static = sum(units[b].static for b in cuts)
    return Plan([units[b].cut for b in cuts], parts, max(peak for _, peak in parts), static)


def _undominated(frontier: list[tuple[float, int, tuple[int, ...]]]) -> list[tuple[float, int, tuple[int, ...]]]:
    """The states for which no other has both a lower peak and fewer gradients."""
    kept: list[tuple[float, int, tuple[int, ...]]] = []
    for state in sorted(frontier):
        if not kept or state[1] < kept[-1][1]:
            kept.append(state)
    return kept
