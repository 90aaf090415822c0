"""A model's memory unit by unit, measured on small images."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from ..backbones import Unit
from ..backbones.config import with_cuts, without_networks
from ..local import Cut
from ..mode import LOCAL
from .footprint import BATCH, Footprint, padded, small_size, static_bytes
from .plan import UnitMemory
from .training_step import TrainingStep


def profile(config: Config, batch: int, size: tuple[int, int]) -> list[UnitMemory]:
    """Take one small step of a model cut after every unit and scale it (see :class:`Footprint`).

    Args:
        config: The config of a block-local detector or segmentor with one ``auxiliary`` for all cuts.
        batch: Images a step.
        size: Height and width of an image in pixels.

    Returns:
        The units from the first that trains on.

    Raises:
        ValueError: ``auxiliary`` is a list.
    """
    config = deepcopy(config)
    backbone = config.model.backbone
    if not isinstance(backbone.get('auxiliary'), Mapping):
        raise ValueError(
            'cuts are planned with one auxiliary=dict(...) for all of them: model.backbone.auxiliary is '
            f'{type(backbone.get("auxiliary")).__name__}'
        )
    init_default_scope(config.get('default_scope', 'mmengine'))
    cuts = trained_units(config)
    config.model.backbone = with_cuts(backbone, cuts[:-1])
    small = small_size(config)
    step = TrainingStep(config, LOCAL.with_units_checkpointed(bool(backbone.get('with_cp'))), BATCH, small)
    model = step.model
    units = [unit for block in model.backbone.blocks() for unit in block.units if unit.cut in cuts]
    with Footprint(step, small) as live:
        _mark(model, units, live)
        step.run()
        live.mark(f'unit{len(units)}')
    line = live.at(batch, padded(config, size))
    # Neck and heads are to the last unit what auxiliary networks are to the others.
    after = [_gradient_bytes(network.parameters()) for network in model.backbone.auxiliary]
    after.append(sum(_gradient_bytes(m.parameters()) for name, m in model.named_children() if name != 'backbone'))
    gradients = [_gradient_bytes(block.parameters) for block in model.backbone.blocks()]
    static = [static_bytes(config, n.parameters(), n.buffers()) for n in model.backbone.auxiliary]
    found = []
    for j, cut in enumerate(cuts):
        unit, network, back, following = f'unit{j}', f'auxiliary{j}', f'back{j}', f'unit{j + 1}'
        start = line.now(unit)
        kept = line.now(network) - start
        found.append(
            UnitMemory(
                cut=cut,
                before=start - sum(gradients[:j]) - sum(after[:j]),
                kept=kept,
                forward=line.highest(unit, network) - start,
                auxiliary=line.highest(network, back) - start - kept,
                backward=line.highest(back, following) - start - kept - after[j],
                gradients=gradients[j],
                auxiliary_gradients=after[j],
                static=[*static, 0][j],
            )
        )
    return found


def trained_units(config: Config) -> list[Cut]:
    """The units of a config's backbone from the first that trains on; it can be cut after each but the last."""
    init_default_scope(config.get('default_scope', 'mmengine'))
    return MODELS.build(without_networks(with_cuts(config.model.backbone, []))).trained_units


def _gradient_bytes(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)


def _mark(model: nn.Module, units: Sequence[Unit], live: Footprint) -> None:
    """Name the moments of a step of a model that is cut after every unit."""
    backbone = model.backbone
    backbone.register_forward_pre_hook(lambda *_: live.mark('unit0'))
    for j, unit in enumerate(units[1:], 1):
        unit.module.register_forward_pre_hook(lambda *_, j=j: live.mark(f'unit{j}'))
    for j, network in enumerate(backbone.auxiliary):

        def auxiliary(module: nn.Module, args: tuple, j: int = j) -> None:
            live.mark(f'auxiliary{j}')
            args[0].register_hook(lambda gradient: live.mark(f'back{j}'))

        network.register_forward_pre_hook(auxiliary)

    def heads(module: nn.Module, args: tuple, outputs: Sequence[Tensor]) -> None:
        live.mark(f'auxiliary{len(units) - 1}')
        outputs[-1].register_hook(lambda gradient: live.mark(f'back{len(units) - 1}'))

    backbone.register_forward_hook(heads)
