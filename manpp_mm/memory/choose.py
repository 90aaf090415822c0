"""Which plan of cuts to take."""

from collections.abc import Sequence

from .plan import Plan

NEARLY = 1.02
"""Needs within this factor are taken for equal: a block more costs its auxiliary network's work, and takes units from
the task's gradient."""


def choose_plan(candidates: Sequence[Plan], static: int, room: int | None = None) -> Plan:
    """Choose the first plan that fits, else the first of those that need about the least.

    Args:
        candidates: What costs least first: for block-local training the best plan for each number of blocks, for exact
            gradients that for each last cut.
        static: Bytes of what is there before a step, without auxiliary networks.
        room: Bytes for everything, or None.
    """
    lowest = min(plan.needed for plan in candidates)
    limit = NEARLY * lowest
    if room is not None and static + lowest <= room:
        limit = room - static
    return next(plan for plan in candidates if plan.needed <= limit)
