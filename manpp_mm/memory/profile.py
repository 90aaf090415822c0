"""A model's memory unit by unit, measured on small images."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy

import numpy as np
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from ..backbones import Unit
from ..backbones.config import with_cuts, without_networks
from ..backbones.ownership import parameters_of
from ..local import Cut
from ..mode import EXACT, LOCAL
from .footprint import Footprint, Probe, padded, probing_step, small_probe, static_bytes, stepping_bytes
from .plan import ExactUnit, Plan, UnitMemory, exact_plans, plans


class LocalProfile:
    """One small step of a model cut after every unit (see :class:`Footprint`).

    Args:
        config: The config of a block-local detector or segmentor with one ``auxiliary`` for all cuts.
        amp: Whether to use mixed precision.
        probe: Images, height and width; by default those of :func:`small_probe`.

    Raises:
        ValueError: ``auxiliary`` is a list.
    """

    def __init__(self, config: Config, amp: bool = False, probe: 'Probe | None' = None) -> None:
        self._config = config = deepcopy(config)
        backbone = config.model.backbone
        if not isinstance(backbone.get('auxiliary'), Mapping):
            raise ValueError(
                'planned cuts need one auxiliary=dict(...) for all of them, but model.backbone.auxiliary is '
                f'{type(backbone.get("auxiliary")).__name__}'
            )
        init_default_scope(config.get('default_scope', 'mmengine'))
        self.cuts = trained_units(config)
        # A unit that runs again would be marked twice. The plan ignores it; the prediction of its peak does not.
        config.model.backbone = with_cuts(backbone, self.cuts[:-1]) | dict(lateral_gradient=False)
        probe = probe or small_probe(config)
        step = probing_step(config, LOCAL.with_units_checkpointed(bool(backbone.get('with_cp'))), probe, amp)
        model = step.model
        units = [unit for block in model.backbone.blocks() for unit in block.units if unit.cut in self.cuts]
        with Footprint(step, probe) as self._live:
            _mark(model, units, self._live)
            step.run()
            self._live.mark(f'unit{len(units)}')
        # Neck and heads take the role of an auxiliary network for the last unit.
        self._after = [_gradient_bytes(network.parameters()) for network in model.backbone.auxiliary]
        heads = (module for name, module in model.named_children() if name != 'backbone')
        self._after.append(sum(_gradient_bytes(module.parameters()) for module in heads))
        self._gradients = [_gradient_bytes(block.parameters) for block in model.backbone.blocks()]
        self._static = [static_bytes(config, n.parameters(), n.buffers()) for n in model.backbone.auxiliary] + [0]
        self._stepping = [stepping_bytes(n.parameters()) for n in model.backbone.auxiliary] + [0]

    def units(self, batch: int, size: tuple[int, int]) -> list[UnitMemory]:
        """Return the units, starting with the first one that trains, for images of a height and width in pixels."""
        line = self._live.at(batch, padded(self._config, size))
        gradients, after = self._gradients, self._after
        found = []
        for j, cut in enumerate(self.cuts):
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
                    static=self._static[j],
                    stepping=self._stepping[j],
                )
            )
        return found

    def plans(self, batch: int, size: tuple[int, int], stepping: int = 0) -> list[Plan]:
        """See :func:`manpp_mm.memory.plan.plans`."""
        return plans(self.units(batch, size), stepping)


class ExactProfile:
    """One small step of a model with exact gradients and without cuts (see :class:`Footprint`).

    Args:
        config: The config of a detector or segmentor with a local backbone.
        amp, probe: As for :class:`LocalProfile`.

    Attributes:
        step: The footprint of end-to-end training or of checkpointed units.
    """

    def __init__(self, config: Config, amp: bool = False, probe: 'Probe | None' = None) -> None:
        self._config = config = deepcopy(config)
        config.model.backbone = with_cuts(config.model.backbone, [])
        probe = probe or small_probe(config)
        mode = EXACT.with_units_checkpointed(bool(config.model.backbone.get('with_cp')))
        step = probing_step(config, mode, probe, amp)
        backbone = step.model.backbone
        (block,) = backbone.blocks()
        self._units = [unit for unit in block.units if unit.cut in backbone.trained_units]
        self._idle = not any(p.requires_grad for p in parameters_of(backbone.stem_parts()))
        self._outputs: dict[int, np.ndarray] = {}  # -1 is the first unit's input
        with Footprint(step, probe) as self.step:
            _mark_exact(step.model, self._units, self.step, self._outputs)
            step.run()
            self.step.mark('back-1')

    def plans(self, batch: int, size: tuple[int, int], stepping: int = 0) -> list[Plan]:
        """See :func:`manpp_mm.memory.plan.exact_plans`."""
        size = padded(self._config, size)
        line, growth = self.step.at(batch, size), self.step.growth(batch, size)
        outputs = {j: float(split @ growth) for j, split in self._outputs.items()}
        last = len(self._units) - 1
        kept = [line.now(f'unit{j + 1}') - line.now(f'unit{j}') for j in range(last + 1)]
        found = []
        for j, unit in enumerate(self._units):
            back = line.now(f'back{j}')
            found.append(
                ExactUnit(
                    cut=unit.cut,
                    kept=kept[j],
                    forward=line.highest(f'unit{j}', f'unit{j + 1}') - line.now(f'unit{j}'),
                    above=back - sum(kept[: j + 1]),
                    backward=line.highest(f'back{j}', f'back{j - 1}') - back,
                    output=outputs[j],
                    feature=outputs[j] if unit.output is not None else 0.0,
                    work=line.work(f'unit{j}' if j or not self._idle else 'trained', f'unit{j + 1}'),
                )
            )
        heads = line.highest(f'unit{last + 1}', f'back{last}') - sum(kept)
        return exact_plans(found, heads, outputs[-1] if self._idle else 0.0, stepping)


def trained_units(config: Config) -> list[Cut]:
    """Return the units of a config's backbone, starting with the first that trains; cuts go after all but the last."""
    init_default_scope(config.get('default_scope', 'mmengine'))
    return MODELS.build(without_networks(with_cuts(config.model.backbone, []))).trained_units


def _gradient_bytes(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)


def _mark_exact(model: BaseModel, units: Sequence[Unit], live: Footprint, outputs: dict[int, np.ndarray]) -> None:
    """Mark the moments of a step without cuts, and record the sizes of the units' outputs."""
    model.backbone.register_forward_pre_hook(lambda *_: live.mark('unit0'))

    def entered(module: nn.Module, args: tuple) -> None:
        live.mark('trained')
        outputs[-1] = live.split(args[0])

    units[0].module.register_forward_pre_hook(entered)
    for j, unit in enumerate(units):

        def ran(module: nn.Module, args: tuple, x: Tensor, j: int = j) -> None:
            if j not in outputs:  # a checkpointed unit runs twice
                live.mark(f'unit{j + 1}')
                outputs[j] = live.split(x)
                x.register_hook(lambda gradient: live.mark(f'back{j}'))

        unit.module.register_forward_hook(ran)


def _mark(model: BaseModel, units: Sequence[Unit], live: Footprint) -> None:
    """Mark the moments of a step of a model that is cut after every unit."""
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
