"""Assignment of parameters to the parts of a backbone."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from .unit import Unit


def parameters_of(parts: 'Iterable[nn.Module | nn.Parameter]') -> list[nn.Parameter]:
    """Return the parameters of modules and individual parameters, each once."""
    found: list[nn.Parameter] = []
    for part in parts:
        found += part.parameters() if isinstance(part, nn.Module) else [part]
    return list(dict.fromkeys(found))


def check_family(backbone: Any, units: Sequence[Unit]) -> None:
    """Check that the definition of a local backbone class is consistent.

    Args:
        backbone: A local backbone without auxiliary networks.
        units: Its units.

    Raises:
        ValueError: The class does not set its auxiliary networks; the units' outputs differ from the backbone's; or a
            trainable parameter belongs to several of unit, stem and output, or to none and would not learn.
    """
    name = type(backbone).__name__
    if not hasattr(backbone, 'auxiliary_type'):
        raise ValueError(
            f'{name} must set auxiliary_type, DetectionAuxiliary, SegmentationAuxiliary or ClassificationAuxiliary '
            '(docs/new_backbone.md)'
        )
    found, wanted = [unit.output for unit in units if unit.output is not None], list(backbone.out_indices)
    if found != sorted(wanted):
        raise ValueError(
            f'{name}: units() name the outputs of stages {found}, but model.backbone.out_indices is {wanted}: set '
            'Unit.output where one of these stages ends (docs/new_backbone.md)'
        )
    parts = {'the stem': parameters_of(backbone.stem_parts())}
    for unit in units:
        parts[f'unit {unit.cut}'] = parameters_of([unit.module])
        if unit.output is not None:
            parts[f'the output of stage {unit.output}'] = parameters_of(backbone.output_modules(unit.output))
    owners: dict[int, list[str]] = {}
    for part, parameters in parts.items():
        for parameter in parameters:
            owners.setdefault(id(parameter), []).append(part)
    for parameter_name, parameter in backbone.named_parameters():
        owning = owners.get(id(parameter), [])
        if parameter.requires_grad and len(owning) != 1:
            where = f'belongs to {" and to ".join(owning)}' if owning else 'belongs to no unit, stem or output'
            raise ValueError(
                f'{name}: {parameter_name} {where}, so no single block can train it: see units(), stem_parts() and '
                'output_modules() (docs/new_backbone.md)'
            )
