"""What trains where, in a few lines for the log."""

from torch import nn

from .local_backbone import LocalBackbone


def block_table(backbone: LocalBackbone) -> str:
    """A local backbone's blocks: units, parameters, and the auxiliary network that trains each."""
    kind = 'block by block' if backbone.gradient == 'local' else 'by exact gradients'
    lines = [
        f'{type(backbone).__name__} trains {kind}',
        f'{"block":<7}{"units (stage, unit)":<22}{"parameters":>11}{"trained":>9}  auxiliary network',
    ]
    for block, units in enumerate(backbone.block_units):
        words = str(units[0]) if len(units) == 1 else f'{units[0]} to {units[-1]}'
        own = nn.ModuleList(backbone.block_modules(block))
        if block < len(backbone.auxiliary):
            network = backbone.auxiliary[block]
            heads = ', '.join(type(head).__name__ for head in network.heads)
            trainer = f'{heads}, {_millions(_count(network))}'
        else:
            trainer = "none: the model's neck and heads" if block + 1 == len(backbone.block_units) else 'none'
        lines.append(
            f'{block:<7}{words:<22}{_millions(_count(own)):>11}{_millions(_count(own, trained=True)):>9}  {trainer}'
        )
    trunk = _count(backbone) - _count(backbone.auxiliary)
    lines.append(f'trunk {_millions(trunk)} parameters, auxiliary networks {_millions(_count(backbone.auxiliary))}')
    return '\n'.join(lines)


def _count(module: nn.Module, trained: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def _millions(number: int) -> str:
    return f'{number / 1e6:.2f} M'
