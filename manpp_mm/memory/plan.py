"""Where to cut: a dynamic programme over what each unit keeps and holds, for local and for exact gradients."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..local import Cut


@dataclass
class UnitMemory:
    """What one unit and the auxiliary network after it take in block-local training, in bytes at the planned input.

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
        stepping: What its parameters add while the optimizer steps.
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
    """What one unit takes where the task's gradient flows through all, in bytes at the planned input.

    Attributes:
        cut: The unit.
        kept: What forward keeps for backward, the output included.
        forward: Most alive in forward, from the unit's start.
        above: Alive where its backward begins, beyond what units up to it keep: gradients of what comes later.
        backward: Most that its backward adds.
        output: The output that a cut after the unit keeps.
        feature: The map that a stage that ends here keeps for the neck, 0 inside a stage.
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
    """Cuts and what they are predicted to need.

    Attributes:
        cuts: The cuts.
        peak_bytes: Most bytes alive beyond what is there before the step, the optimizer's own step included.
        auxiliary_bytes: Parameters, buffers and optimizer state of the auxiliary networks.
        work: Floating-point operations of what is run again.
    """

    cuts: list[Cut]
    peak_bytes: int
    auxiliary_bytes: int = 0
    work: float = 0.0

    @property
    def needed(self) -> int:
        """Bytes of all that comes with the cuts."""
        return self.auxiliary_bytes + self.peak_bytes


def plans(units: Sequence[UnitMemory], stepping: int = 0) -> list[Plan]:
    """Block-local training: the plan that needs least for each number of blocks, one block first.

    Args:
        units: A model's, from the first unit that trains on.
        stepping: Bytes while the optimizer steps, auxiliary networks apart.
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
    """Exact gradients: for each last cut the plan with the lowest predicted peak, the least that is run again first.

    Args:
        units: A model's, from the first unit that trains on.
        heads: Most that neck and heads add to what units keep.
        entry: The first unit's input where it is not run again, because nothing before it trains.
        stepping: Bytes while the optimizer steps.
    """
    number = len(units)
    costs = [
        [_exact_block(units[a : b + 1]) + entry * (a > 0) if b >= a else 0.0 for b in range(number)]
        for a in range(number)
    ]
    carried = [unit.output for unit in units]
    # While neck and heads run, the maps of all stages are there as well; one that a cut keeps is not there twice.
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
    """For each number of cuts, none first: the peaks of divisions into blocks that may be the best, and their cuts.

    Args:
        costs: Peak of a block from unit a to unit b by itself.
        carried: What a cut after a unit adds to all blocks after it.
        shared: What of that ``ends`` holds, too.
        ends: Peak after the last block, which starts with unit a, by itself; None: no higher than the block's.
        floor: A peak that there is in any case.
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


def _exact_block(units: Sequence[ExactUnit]) -> float:
    """The most alive while a block is run again and back; the last one, whose first run is the only one, back."""
    highest = kept = 0.0
    for unit in units:
        highest = max(highest, units[-1].above + kept + unit.forward)
        kept += unit.kept
        highest = max(highest, kept + unit.above + unit.backward)
    return highest


def _undominated(
    frontier: list[tuple[float, float, tuple[int, ...]]],
) -> list[tuple[float, float, tuple[int, ...]]]:
    """The states for which no other has both a lower peak and less carried."""
    kept: list[tuple[float, float, tuple[int, ...]]] = []
    for state in sorted(frontier):
        if not kept or state[1] < kept[-1][1]:
            kept.append(state)
    return kept
