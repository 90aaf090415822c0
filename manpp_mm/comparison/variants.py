"""From a block-local config to the configs of a comparison."""

import ast
import copy
import re
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from ..backbones.config import checked_local_class
from ..hooks import GradientSwitchHook
from ..methods import FAMILY, without_local
from ..mode import END_TO_END, FROZEN

KINDS: dict[str, dict[str, Any]] = {
    str(END_TO_END): {},
    str(FROZEN): {},
    'front_frozen': {},
    **FAMILY,
}
"""The kinds of variants; of the local ones what they set in ``model.backbone.auxiliary``.

``frozen`` keeps the whole backbone as it starts, ``front_frozen`` the stages that lie wholly before the last cut (of a
Swin Transformer with the merging that follows); what comes after them trains end-to-end.
"""
_PLAIN = (str(END_TO_END), str(FROZEN), 'front_frozen')


@dataclass(frozen=True)
class Variant:
    """What one variant changes.

    Attributes:
        name: As it was written, or the label before it.
        kind: A key of :data:`KINDS`.
        blocks: ``local_blocks``, None for the config's own cuts.
        exact: ``'start'`` or ``'end'``, where exact gradients flow for a stretch, or None.
        options: Config keys that are set besides.
        definition: As it was written, without label.
    """

    name: str
    kind: str
    blocks: int | None = None
    exact: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    definition: str = ''

    @property
    def local(self) -> bool:
        """Whether the backbone is trained block by block."""
        return self.kind not in _PLAIN


def parse_variant(name: str) -> Variant:
    """Read a variant's name: ``manpp``, ``dgl_k4``, ``manpp_exact_start``, ``manpp+model.backbone.with_cp=True``.

    A label may stand before it, ``low:manpp+optim_wrapper.optimizer.lr=0.001``.

    Raises:
        ValueError: It is none.
    """
    labelled = re.fullmatch(r'(?:(\w+):)?(.*)', name, re.DOTALL)
    assert labelled is not None  # it takes any text
    label, definition = labelled.groups()
    head, *options = definition.split('+')
    match = re.fullmatch(rf'({"|".join(KINDS)})(?:_k(\d+))?(?:_exact_(start|end))?', head)
    if match is None or (match[1] in _PLAIN and head != match[1]) or not all('=' in option for option in options):
        raise ValueError(
            f'{name!r} is no variant: one of {", ".join(KINDS)}, the local ones with _k4 for four blocks or '
            '_exact_start or _exact_end for a stretch of exact gradients, all with +KEY=VALUE for a config key besides '
            'and LABEL: before it'
        )
    pairs = dict(option.split('=', 1) for option in options)
    return Variant(
        label or name,
        match[1],
        int(match[2]) if match[2] else None,
        match[3],
        {k: _value(v) for k, v in pairs.items()},
        definition,
    )


def variant_config(config: Config, variant: Variant, stretch: float) -> Config:
    """A variant of a block-local config. What is not named here stays as it is.

    Args:
        config: The config of MAN++; left as it is.
        variant: The variant.
        stretch: Share of the schedule that ``exact`` covers.

    Raises:
        ValueError: The config is not block-local, or leaves its cuts to be planned.
    """
    checked_local_class(config)
    if config.model.backbone.get('local_blocks') == 'auto':
        raise ValueError("a comparison needs fixed cuts in place of local_blocks='auto': tools/fit.py finds some")
    config = copy.deepcopy(config)
    hooks = list(config.get('custom_hooks') or [])
    if variant.local:
        backbone = config.model.backbone
        entries = backbone.auxiliary if isinstance(backbone.auxiliary, list) else [backbone.auxiliary]
        for entry in entries:
            entry.update(KINDS[variant.kind])
        if variant.blocks is not None:
            backbone.update(cuts=None, local_blocks=variant.blocks)
        if variant.exact == 'start':
            hooks.append(dict(type=GradientSwitchHook.__name__, begin=0.0, end=stretch))
        elif variant.exact == 'end':
            hooks.append(dict(type=GradientSwitchHook.__name__, begin=1 - stretch, end=1.0))
    else:
        frozen = None if variant.kind == str(END_TO_END) else stages_to_freeze(config, variant.kind)
        config = without_local(config)
        if frozen is not None:
            config.model.backbone.frozen_stages = frozen
        hooks = config.custom_hooks
    config.custom_hooks = hooks
    try:
        config.merge_from_dict(variant.options)
    except (TypeError, KeyError) as error:
        raise ValueError(f'{variant.name}: {error}') from error
    return config


def stages_to_freeze(config: Config, kind: str) -> int:
    """Upstream's ``frozen_stages`` of a variant."""
    init_default_scope(config.get('default_scope', 'mmengine'))
    local = MODELS.build(copy.deepcopy(config.model.backbone))
    last = local.blocks()[-1].units
    if kind == str(FROZEN):
        return local.stages_before(last[-1].cut) + 1
    return local.stages_before(last[0].cut) if local.cuts else local.frozen_stages


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
