"""The choice of a plan of cuts."""

from collections.abc import Sequence

from .plan import Plan

NEARLY = 1.02
"""Memory needs within this factor count as equal, since another block costs the work of its auxiliary network and
removes units from the task's gradient."""


def choose_plan(candidates: Sequence[Plan], static: int, room: int | None = None) -> Plan:
    """Choose the first plan that fits, or else the first of those with about the lowest need.

    Args:
        candidates: Plans, the cheapest first: for block-local training the best plan for each number of blocks, for
            exact gradients the best plan for each last cut.
        static: Bytes allocated before a step, without auxiliary networks.
        room: Bytes available for everything, or None.
    """
    lowest = min(plan.needed for plan in candidates)
    limit = NEARLY * lowest
    if room is not None and static + lowest <= room:
        limit = room - static
    return next(plan for plan in candidates if plan.needed <= limit)
