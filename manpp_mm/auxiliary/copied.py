"""The choice of the units that the branches of an auxiliary network copy."""

from collections.abc import Sequence

from ..backbones.unit import Unit


def copied_units(end: Unit, following: Sequence[Unit], wanted: object) -> list[Unit]:
    """Choose the units that branches copy.

    Args:
        end: The block's last unit.
        following: The units after it, at least one.
        wanted: The config's value: the number of units, or their places; see :class:`AuxiliaryNetwork`.

    Raises:
        ValueError: The number is not positive, a place has no unit, or the input of a unit does not match the output of
            the one before it.
    """
    if isinstance(wanted, int) and not isinstance(wanted, bool) and wanted > 0:
        return list(following[:wanted])
    if not isinstance(wanted, Sequence) or isinstance(wanted, str) or not wanted:
        raise ValueError(f'units={wanted!r} must be a positive number, or places [(stage, index), ...]')
    places = [tuple(place) if isinstance(place, Sequence) else (place,) for place in wanted]
    if any(len(place) != 2 or not all(isinstance(index, int) for index in place) for place in places):
        raise ValueError(f'units={wanted!r}: each place is a pair (stage, index) of integers')
    if places != sorted(set(places)):
        raise ValueError(f'units={wanted!r}: places must be in ascending order without repetition')
    known = [end.cut, *(unit.cut for unit in following)]
    beyond = [place for place in places if place > end.cut and place not in known]
    if beyond:
        raise ValueError(f'units={wanted!r}: there is no unit {beyond[0]}; the last one is {known[-1]}')
    found = [index for index, unit in enumerate(following) if unit.cut in places] or [0]
    last = end
    for index in found:
        before = following[index - 1] if index else end
        if (before.channels, before.stride) != (last.channels, last.stride):
            raise ValueError(
                f'units={wanted!r}: unit {following[index].cut} takes {before.channels} channels at stride '
                f'{before.stride}, but {last.cut} gives {last.channels} at {last.stride}: add the first unit of each '
                'stage between them'
            )
        last = following[index]
    return [following[index] for index in found]
