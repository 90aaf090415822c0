"""Planning of cuts by dynamic programming over the memory of each unit, for local and for exact gradients."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..local import Cut


@dataclass
class UnitMemory:
    """Bytes of one unit and the auxiliary network after it in block-local training, at the planned input.

    Attributes:
        cut: The unit.
        before: Alive at the start of the unit, without gradients: its input and the features kept for the neck.
        kept: Kept by forward for backward, including the output.
        forward: Peak in forward, relative to the start of the unit.
        auxiliary: Peak that forward and backward of the auxiliary network add (after the last unit: of neck and heads).
        backward: Peak that backward adds to what is kept, without the auxiliary network's gradients.
        gradients: Gradients of the unit's parameters.
        auxiliary_gradients: Gradients of the auxiliary network's parameters.
        static: Parameters, buffers and optimizer state of the auxiliary network.
        stepping: Additional bytes for its parameters during the optimizer step.
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
    stepping: int = 0


@dataclass
class ExactUnit:
    """Bytes of one unit if the task's gradient flows through all units, at the planned input.

    Attributes:
        cut: The unit.
        kept: Kept by forward for backward, including the output.
        forward: Peak in forward, relative to the start of the unit.
        above: Alive at the start of its backward beyond what the units up to it keep: gradients of later parts.
        backward: Peak that its backward adds.
        output: The output, which a cut after the unit keeps.
        feature: The feature map kept for the neck if a stage ends here, otherwise 0.
        work: Floating-point operations of its forward.
    """

    cut: Cut
    kept: float
    forward: float
    above: float
    backward: float
    output: float
    feature: float
    work: float


@dataclass
class Plan:
    """Cuts and their predicted memory.

    Attributes:
        cuts: The cuts.
        peak_bytes: Peak of live bytes in addition to those before the step, including the optimizer step.
        auxiliary_bytes: Parameters, buffers and optimizer state of the auxiliary networks.
        work: Floating-point operations of recomputation.
    """

    cuts: list[Cut]
    peak_bytes: int
    auxiliary_bytes: int = 0
    work: float = 0.0

    @property
    def needed(self) -> int:
        """Total bytes that depend on the cuts."""
        return self.auxiliary_bytes + self.peak_bytes


def plans(units: Sequence[UnitMemory], stepping: int = 0) -> list[Plan]:
    """Return the plan with the lowest need for each number of blocks in block-local training, one block first.

    Args:
        units: The units of a model, starting with the first one that trains.
        stepping: Bytes during the optimizer step, without auxiliary networks.
    """
    number = len(units)
    before = [unit.before + sum(u.gradients for u in units[:a]) for a, unit in enumerate(units)]
    costs = [[before[a] + _block(units[a : b + 1]) if b >= a else 0.0 for b in range(number)] for a in range(number)]
    carried = [unit.auxiliary_gradients for unit in units]
    found = []
    for finished in _divisions(costs, carried, [0] * number, floor=stepping):
        candidates = []
        for peak, cuts in finished:
            taken = [units[b] for b in cuts]
            highest = max(round(peak), stepping + sum(unit.stepping for unit in taken))
            candidates.append(Plan([unit.cut for unit in taken], highest, sum(unit.static for unit in taken)))
        found.append(min(candidates, key=lambda plan: plan.needed))
    return found


def exact_plans(units: Sequence[ExactUnit], heads: float, entry: float = 0.0, stepping: int = 0) -> list[Plan]:
    """Return the plan with the lowest predicted peak for each last cut with exact gradients, least recomputation first.

    Args:
        units: The units of a model, starting with the first one that trains.
        heads: Peak that neck and heads add to what the units keep.
        entry: The first unit's input if it is not recomputed because nothing before it trains.
        stepping: Bytes during the optimizer step.
    """
    number = len(units)
    costs = [
        [_exact_block(units[a : b + 1]) + entry * (a > 0) if b >= a else 0.0 for b in range(number)]
        for a in range(number)
    ]
    carried = [unit.output for unit in units]
    # While neck and heads run, the maps of all stages are alive as well; a map that a cut keeps is counted once.
    ends = [sum(u.kept for u in units[a:]) + sum(u.feature for u in units[:a]) + heads + entry * (a > 0)
            for a in range(number)]  # fmt: skip
    best: dict[int, tuple[float, tuple[int, ...]]] = {}
    for finished in _divisions(costs, carried, [unit.feature for unit in units], ends, stepping):
        for peak, cuts in finished:
            last = cuts[-1] if cuts else -1
            best[last] = min(best.get(last, (peak, cuts)), (peak, cuts), key=lambda each: (each[0], len(each[1])))
    return [
        Plan([units[b].cut for b in cuts], round(peak), work=sum(unit.work for unit in units[: last + 1]))
        for last, (peak, cuts) in sorted(best.items())
    ]


def _divisions(
    costs: Sequence[Sequence[float]],
    carried: Sequence[float],
    shared: Sequence[float],
    ends: 'Sequence[float] | None' = None,
    floor: float = 0.0,
) -> Iterator[list[tuple[float, tuple[int, ...]]]]:
    """Yield, for each number of cuts from 0, peaks and cuts of the divisions into blocks that may be the best.

    Args:
        costs: Peak of a block from unit a to unit b alone.
        carried: Bytes that a cut after a unit adds to all later blocks.
        shared: The part of these bytes that ``ends`` includes as well.
        ends: Peak after the last block, which starts with unit a, alone; None if it is no higher than the block's.
        floor: A lower limit of all peaks.
    """
    number = len(carried)
    # For each unit that a block may start with: (peak so far, carried so far, cuts).
    states: dict[int, list[tuple[float, float, tuple[int, ...]]]] = {0: [(floor, 0, ())]}
    while states:
        finished = []
        for a, frontier in states.items():
            for peak, kept, cuts in frontier:
                last = kept + costs[a][number - 1]
                if ends is not None:
                    last = max(last, kept + ends[a] - sum(shared[cut] for cut in cuts))
                finished.append((max(peak, last), cuts))
        yield finished
        following: dict[int, list] = {}
        for a, frontier in states.items():
            for b in range(a, number - 1):
                following.setdefault(b + 1, []).extend(
                    (max(peak, kept + costs[a][b]), kept + carried[b], (*cuts, b)) for peak, kept, cuts in frontier
                )
        states = {start: _undominated(frontier) for start, frontier in following.items()}


def _block(units: Sequence[UnitMemory]) -> float:
    """Return the peak while the units of one block learn, in addition to what was alive before."""
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


def _exact_block(units: Sequence[ExactUnit]) -> float:
    """Return the peak while a block is recomputed and runs backward; the last block is not recomputed."""
    highest = kept = 0.0
    for unit in units:
        highest = max(highest, units[-1].above + kept + unit.forward)
        kept += unit.kept
        highest = max(highest, kept + unit.above + unit.backward)
    return highest


def _undominated(
    frontier: list[tuple[float, float, tuple[int, ...]]],
) -> list[tuple[float, float, tuple[int, ...]]]:
    """Return the states for which no other has both a lower peak and less carried."""
    kept: list[tuple[float, float, tuple[int, ...]]] = []
    for state in sorted(frontier):
        if not kept or state[1] < kept[-1][1]:
            kept.append(state)
    return kept
