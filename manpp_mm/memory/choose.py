"""Which plan of cuts to take."""

from collections.abc import Sequence

from .plan import Plan

NEARLY = 1.02
"""Peaks within this factor are taken for equal: a block more costs its auxiliary network's work, and takes units from
the task's gradient."""


def choose_plan(candidates: Sequence[Plan], static: int, room: int | None = None) -> Plan:
    """Choose a plan for block-local training: the fewest blocks that fit, else the fewest of about the lowest peak.

    Args:
        candidates: The best plan for each number of blocks, the fewest first.
        static: Bytes of what is there before a step, without auxiliary networks.
        room: Bytes for everything, or None.
    """
    return _first(candidates, [static + plan.auxiliary_bytes for plan in candidates], room)


def least_again(candidates: Sequence[Plan], static: int, room: int | None = None) -> Plan:
    """Choose a plan for exact gradients: what runs least again of those that fit, else of about the lowest peak.

    Args:
        candidates: The best plan for each last cut, what runs least again first.
        static: Bytes of what is there before a step.
        room: Bytes for everything, or None.
    """
    return _first(candidates, [static] * len(candidates), room)


def _first(candidates: Sequence[Plan], static: Sequence[int], room: int | None) -> Plan:
    if room is not None:
        for plan, fixed in zip(candidates, static, strict=True):
            if fixed + plan.peak_bytes <= room:
                return plan
    lowest = min(plan.peak_bytes for plan in candidates)
    return next(plan for plan in candidates if plan.peak_bytes <= NEARLY * lowest)
