"""The variants of a block-local config for a comparison."""

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
"""The kinds of variants; for local ones, what they set in ``model.backbone.auxiliary``.

``frozen`` freezes the whole backbone. ``front_frozen`` freezes the stages that lie wholly before the last cut (in a
Swin Transformer including the merging after them); the rest trains end-to-end.
"""
_PLAIN = (str(END_TO_END), str(FROZEN), 'front_frozen')


@dataclass(frozen=True)
class Variant:
    """A variant of a config.

    Attributes:
        name: The variant as written, or its label.
        kind: A key of :data:`KINDS`.
        blocks: ``local_blocks``, None for the config's own cuts.
        exact: Where to use exact gradients for a stretch: ``'start'``, ``'end'`` or None.
        options: Additional config keys to set.
        definition: The variant as written, without label.
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
    """Parse a variant: ``manpp``, ``dgl_k4``, ``manpp_exact_start``, ``manpp+model.backbone.with_cp=True``.

    It may start with a label, as in ``low:manpp+optim_wrapper.optimizer.lr=0.001``.

    Raises:
        ValueError: It is not a valid variant.
    """
    labelled = re.fullmatch(r'(?:(\w+):)?(.*)', name, re.DOTALL)
    assert labelled is not None  # it matches any text
    label, definition = labelled.groups()
    head, *options = definition.split('+')
    match = re.fullmatch(rf'({"|".join(KINDS)})(?:_k(\d+))?(?:_exact_(start|end|every\d+))?', head)
    if match is None or (match[1] in _PLAIN and head != match[1]) or not all('=' in option for option in options):
        raise ValueError(
            f'{name!r} is not a variant: use one of {", ".join(KINDS)}. Local ones take _k4 for four blocks, '
            '_exact_start or _exact_end for a stretch of exact gradients. All take +KEY=VALUE to set a config key, and '
            'a prefix LABEL:'
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
    """Return a variant of a block-local config; all other keys are kept.

    Args:
        config: The block-local config; not modified.
        variant: The variant.
        stretch: Fraction of the schedule that ``exact`` covers.

    Raises:
        ValueError: The config is not block-local, or its cuts are to be planned.
    """
    checked_local_class(config)
    if config.model.backbone.get('local_blocks') == 'auto':
        raise ValueError("a comparison needs fixed cuts instead of local_blocks='auto': write them with tools/fit.py")
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
        elif variant.exact:
            hooks.append(dict(type=GradientSwitchHook.__name__, every=int(variant.exact[5:])))
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
    """Return upstream's ``frozen_stages`` for a variant."""
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
