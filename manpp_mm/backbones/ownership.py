"""Which part of a backbone a parameter belongs to."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from .unit import Unit


def parameters_of(parts: 'Iterable[nn.Module | nn.Parameter]') -> list[nn.Parameter]:
    """The parameters of modules, and parameters that stand by themselves, each once."""
    found: list[nn.Parameter] = []
    for part in parts:
        found += part.parameters() if isinstance(part, nn.Module) else [part]
    return list(dict.fromkeys(found))


def check_ownership(backbone: Any, units: Sequence[Unit]) -> None:
    """Does every trainable parameter of a backbone belong to one unit, to the stem or to one output?

    Args:
        backbone: A local backbone without auxiliary networks.
        units: Its units.

    Raises:
        ValueError: One belongs to none of them, and would not learn, or to several.
    """
    parts = {'the stem': parameters_of(backbone.stem_parts())}
    for unit in units:
        parts[f'unit {unit.cut}'] = parameters_of([unit.module])
        if unit.output is not None:
            parts[f'the output of stage {unit.output}'] = parameters_of(backbone.output_modules(unit.output))
    owners: dict[int, list[str]] = {}
    for part, parameters in parts.items():
        for parameter in parameters:
            owners.setdefault(id(parameter), []).append(part)
    for name, parameter in backbone.named_parameters():
        found = owners.get(id(parameter), [])
        if parameter.requires_grad and len(found) != 1:
            where = f'belongs to {" and to ".join(found)}' if found else 'belongs to no unit, stem or output'
            raise ValueError(
                f'{type(backbone).__name__}: {name} {where}, so that no block can train it alone: see units(), '
                'stem_parts() and output_modules() (docs/new_backbone.md)'
            )
