"""A summary of the blocks and their training, for the log."""

from collections.abc import Iterable

from torch import nn

from .local_backbone import LocalBackbone
from .unit import STEM


def block_table(backbone: LocalBackbone) -> str:
    """Format a table of a local backbone's blocks: units, parameters and auxiliary network."""
    kind = 'with exact gradients' if backbone.exact else 'block by block'
    lines = [
        f'{type(backbone).__name__} trains {kind}',
        f'{"block":<7}{"units (stage, unit)":<22}{"parameters":>11}{"trained":>9}  auxiliary network',
    ]
    blocks = backbone.blocks()
    for block, part in enumerate(blocks):
        first, last = part.units[0].cut, part.units[-1].cut
        words = 'stem' if last == STEM else str(first) if first == last else f'{first} to {last}'
        if block < len(backbone.auxiliary):
            network = backbone.auxiliary[block]
            heads = ', '.join(type(head).__name__ for head in network.heads)
            trainer = f'{heads}, {_millions(_count(network.parameters()))}'
        else:
            trainer = "none: the model's neck and heads" if block + 1 == len(blocks) else 'none'
        lines.append(
            f'{block:<7}{words:<22}{_millions(_count(part.parameters)):>11}'
            f'{_millions(_count(p for p in part.parameters if p.requires_grad)):>9}  {trainer}'
        )
    added = _count(backbone.auxiliary.parameters())
    trunk = _count(backbone.parameters()) - added
    lines.append(f'trunk {_millions(trunk)} parameters, auxiliary networks {_millions(added)}')
    return '\n'.join(lines)


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() for p in parameters)


def _millions(number: int) -> str:
    return f'{number / 1e6:.2f} M'
