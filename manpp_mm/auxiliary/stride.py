"""The stride at which an auxiliary network's head runs."""

from collections.abc import Mapping, Sequence


def pooling_to(stride: int | None, own: int) -> int:
    """Return the pooling factor in each dimension that brings a head from its own stride to another."""
    if stride is None:
        return 1
    if not isinstance(stride, int) or isinstance(stride, bool) or stride < 1:
        raise ValueError(f'auxiliary.stride={stride!r} must be a positive number of pixels, such as 16, or None')
    if stride <= own:
        return 1
    if stride % own:
        raise ValueError(
            f'auxiliary.stride={stride} must be a multiple of the stride at which the head would run without it, '
            f'{own} pixels: {stride // own * own} or {(stride // own + 1) * own}'
        )
    return stride // own


def check_strides(config: 'Mapping | Sequence[Mapping]', own: Sequence[int], finest: int) -> None:
    """Check that no stride of ``auxiliary`` is finer than its heads' own, because it would have no effect.

    Args:
        config: ``auxiliary``; one dict for all cuts may be too fine for the current cuts, which may be planned.
        own: The stride at which each head would run without it.
        finest: The finest stride at which a head could run anywhere in the backbone.
    """
    if isinstance(config, Mapping):
        entries = [(config, finest, 'any block')]
    else:
        entries = [(entry, own[block], f'block {block}') for block, entry in enumerate(config)]
    for entry, stride, which in entries:
        wanted = entry.get('stride')
        if wanted is not None and wanted < stride:
            raise ValueError(
                f'auxiliary.stride={wanted} is finer than the {stride} pixels at which the head of {which} runs '
                f'anyway, and would pool nothing: set it to {stride} or coarser, or to None'
            )
