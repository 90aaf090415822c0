"""Training methods, and the changes that make any config train with one of them."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook

from .backbones import LocalBackbone, local_class, plain_model
from .backbones.config import local_twin, mode_of, plain_names
from .compat.config_prefix import OWN, config_folder
from .hooks import CheckpointModulesHook, EarlyLossHook, LocalScalarsHook, MomentumHook
from .hooks.replaced_method import without_meant
from .local import Cut
from .mode import END_TO_END, EXACT, LOCAL, Mode
from .registered import kind_of, named_class

FAMILY: dict[str, dict[str, Any]] = {
    'manpp': dict(branches=['learnable', 'momentum'], scaling='learnable'),
    'man': dict(branches=['learnable', 'momentum'], scaling=1),
    'dgl': dict(branches=[], scaling=None),
    'learnable': dict(branches=['learnable'], scaling=None),
    'momentum': dict(branches=['momentum'], scaling=None),
}
"""The family of block-local methods, and what each sets in ``model.backbone.auxiliary``."""

MODE_OF: dict[str, Mode] = {
    'end_to_end': END_TO_END,
    'checkpointed': END_TO_END.with_units_checkpointed(),
    'exact': EXACT,
    'manpp': LOCAL,
    'man': LOCAL,
    'dgl': LOCAL,
}
"""The methods of the command line, and how each trains the backbone."""

METHODS = tuple(MODE_OF)

_TASKS = dict(mmdet='detection', mmseg='segmentation', mmpretrain='classification')
"""The config fragment for each package."""

POOLED = 16
"""The stride in pixels of cheap auxiliary networks."""


def check_method(name: str) -> None:
    """Check that a method exists.

    Raises:
        ValueError: It does not.
    """
    if name not in METHODS:
        raise ValueError(f'unknown method {name!r}, choose from {", ".join(METHODS)}')


@dataclass(frozen=True)
class Way:
    """A way to train a config: a method, its cuts, and further measures that save memory.

    Attributes:
        method: One of :data:`METHODS`.
        mode: The resulting mode.
        cuts: The cuts of the backbone; None if it is not cut.
        stride: The stride of auxiliary networks added to a config without them; None uses the fragment's.
        early: Names of the heads with an early loss.
        modules: Names of the modules to checkpoint.
    """

    method: str
    mode: Mode
    cuts: 'tuple[Cut, ...] | None' = None
    stride: int | None = None
    early: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()

    def __str__(self) -> str:
        name = str(self.mode)
        if self.mode.local:
            name = name.replace(LOCAL.backbone, self.method, 1)
        return name if self.stride is None else f'{name}_stride{self.stride}'

    @property
    def same_gradients(self) -> bool:
        """Whether the gradients are those of end-to-end training."""
        return not self.mode.local

    def as_dict(self) -> dict[str, Any]:
        """Convert to a dict for a config."""
        cuts = None if self.cuts is None else [list(cut) for cut in self.cuts]
        return dict(
            method=self.method, mode=str(self.mode), cuts=cuts, stride=self.stride, early=list(self.early),
            modules=list(self.modules),
        )  # fmt: skip

    @classmethod
    def from_dict(cls, found: Mapping) -> 'Way':
        """Create from the result of :meth:`as_dict`."""
        cuts = None if found['cuts'] is None else tuple(tuple(cut) for cut in found['cuts'])
        early, modules = tuple(found['early']), tuple(found['modules'])
        return cls(found['method'], Mode.parse(found['mode']), cuts, found['stride'], early, modules)


def method_of(config: Config) -> str:
    """Return the method a config trains with: one of :data:`METHODS`, another member of the family, or ``'local'``."""
    mode = mode_of(config)
    if local_class(config) is None:
        return 'checkpointed' if mode.units_checkpointed else 'end_to_end'
    if mode.exact:
        return 'checkpointed' if mode.units_checkpointed and config.model.backbone.get('cuts') == [] else 'exact'
    auxiliary = config.model.backbone.get('auxiliary') or {}
    first = auxiliary if isinstance(auxiliary, Mapping) else auxiliary[0]
    branches = list(first.get('branches', FAMILY['manpp']['branches']))
    scaling = first.get('scaling', 'learnable' if len(branches) > 1 else None)
    return next((name for name, keys in FAMILY.items() if keys == dict(branches=branches, scaling=scaling)), 'local')


def twin_of(config: Config) -> type[LocalBackbone] | None:
    """Return the local class for a config's local or plain backbone, None if there is none.

    Raises:
        ValueError: The class does not name its auxiliary networks.
    """
    backbone = config.model.get('backbone') or {}
    found = local_class(config) or local_twin(backbone.get('type'), config.get('default_scope'))
    if found is not None and not hasattr(found, 'auxiliary_type'):
        raise ValueError(
            f'model.backbone: {found.__name__} must set auxiliary_type, the auxiliary networks of its task: '
            'DetectionAuxiliary, SegmentationAuxiliary or ClassificationAuxiliary (docs/new_backbone.md)'
        )
    if found is None or found.auxiliary_type.registry.scope != config.get('default_scope'):
        return None  # a backbone of another package, whose auxiliary networks need other targets
    return found


def without_twin(config: Config) -> str:
    """Return a message that a config's backbone has no local class, and which backbones have one."""
    backbone = config.model.get('backbone') or {}
    known = plain_names(config.get('default_scope'))
    close = get_close_matches(kind_of(backbone), known, 1, cutoff=0.5)
    nearest = f'the closest match is {close[0]}' if close else f'available for {", ".join(known)}'
    return f'there is no local backbone for model.backbone.type={backbone.get("type")!r}; {nearest} (docs/backbones.md)'


def apply_way(config: Config, way: Way) -> Config:
    """Return a config that trains in a given way.

    Args:
        config: The config of any detector, segmentor or classifier; not modified. A block-local one keeps its auxiliary
            networks and hooks.
        way: The way.

    Raises:
        ValueError: The way needs a local backbone and there is none for this one, or the number of classes for the
            auxiliary heads cannot be determined.
    """
    config = copy.deepcopy(config)
    was_local = local_class(config) is not None
    twin = twin_of(config)
    if way.cuts is None:
        if was_local:
            config = without_local(config)
    else:
        if twin is None:
            raise ValueError(f'method {way.method!r}: {without_twin(config)}')
        _make_local(config, twin, way, was_local)
    hooks = list(config.get('custom_hooks') or [])
    hooks += [dict(type=EarlyLossHook.__name__, heads=[name])
              for name in way.early if name not in _named(hooks, config, EarlyLossHook, 'heads')]  # fmt: skip
    modules = without_meant(way.modules, _named(hooks, config, CheckpointModulesHook, 'modules'))
    if modules:
        hooks.append(dict(type=CheckpointModulesHook.__name__, modules=modules))
    if hooks:
        config.custom_hooks = hooks
    if way.cuts is not None or way.early or way.modules:
        theirs = config.get('custom_imports') or dict(imports=[], allow_failed_imports=False)
        imports = imported(theirs)
        if OWN not in imports:
            config.custom_imports = theirs | dict(imports=[*imports, OWN])
    return config


def _make_local(config: Config, twin: type[LocalBackbone], way: Way, was_local: bool) -> None:
    """Replace a backbone by its local twin, and add the hooks and networks that it needs."""
    backbone = config.model.backbone
    assert way.cuts is not None
    backbone.update(cuts=list(way.cuts), local_blocks=None)
    backbone.pop('memory_budget', None)
    if bool(backbone.get('with_cp')) != way.mode.units_checkpointed:
        backbone['with_cp'] = way.mode.units_checkpointed
    if way.mode.local:
        backbone.pop('gradient', None)
    else:
        backbone['gradient'] = EXACT.backbone
        backbone.pop('auxiliary', None)
        backbone.pop('lateral_gradient', None)
    if not was_local:
        fragment = fragment_of(twin)
        prefix = f'{twin.auxiliary_type.registry.scope}.' if '.' in str(backbone.type) else ''
        known = named_class(prefix + twin.__name__, 'model', config.get('default_scope')) is twin
        backbone['type'] = (
            prefix + twin.__name__ if known and isinstance(backbone.type, str) else f'{twin.__module__}.{twin.__name__}'
        )
        config.custom_hooks = [*(config.get('custom_hooks') or []), *copy.deepcopy(fragment['manpp_hooks'])]
        checkpoint = (config.get('default_hooks') or {}).get('checkpoint')
        if checkpoint and named_class(checkpoint['type'], 'hook', config.get('default_scope')) is CheckpointHook:
            checkpoint.update(fragment['manpp_default_hooks']['checkpoint'])
        if way.mode.local:
            _add_networks(config, twin, way, fragment)
    if not way.mode.local:
        config.custom_hooks = [hook for hook in config.get('custom_hooks') or [] if not _auxiliary_only(hook, config)]


def _add_networks(config: Config, twin: type[LocalBackbone], way: Way, fragment: Config) -> None:
    """Add auxiliary networks for the model's classes and their learning rates; remove upstream's auxiliary head."""
    auxiliary = copy.deepcopy(fragment['manpp_backbone']['auxiliary'])
    head = auxiliary['head']
    segments = twin.auxiliary_type.registry.scope == 'mmseg'
    head['num_classes'] = classes_of(config.model)
    _check_single_label(config)
    if twin.transformer:
        # At the blocks' own strides, copies of such units need more memory than they save.
        patch = config.model.backbone.get('patch_size')
        auxiliary['stride'] = -(-POOLED // patch) * patch if isinstance(patch, int) else POOLED
        if segments:
            own = _last(config.model.decode_head).get('norm_cfg')
            head['norm_cfg'] = own or ConfigDict(type='SyncBN', requires_grad=True)  # as in upstream's segmentors
    elif twin.small_images:
        auxiliary['stride'] = None
    if way.stride is not None:
        auxiliary['stride'] = way.stride
    if way.method != 'manpp':
        auxiliary.update(FAMILY[way.method])
    config.model.backbone['auxiliary'] = auxiliary
    if segments and config.model.get('auxiliary_head') is not None:
        config.model['auxiliary_head'] = None  # on detached features, it would only train itself
    wrapper = config.get('optim_wrapper')
    if wrapper is None:
        return  # the config is only for testing
    paramwise = ConfigDict(wrapper.get('paramwise_cfg') or {})
    # Another constructor may scale by depth, such as ConvNeXt's, where auxiliary networks count as heads. Rules by
    # layer type alone (`norm_decay_mult`) already apply to auxiliary networks; a key of their own would disable them.
    by_kind = any(key.endswith('_decay_mult') for key in paramwise)
    keys = paramwise.get('custom_keys') or {}
    reached = any('backbone' in key for key in keys) if by_kind else keys or not paramwise
    if wrapper.get('constructor') is None and reached:
        # Without any rule in upstream's config, copies of a transformer's norms decay as in the trunk.
        own = fragment['manpp_transformer_paramwise' if twin.transformer and paramwise else 'manpp_paramwise']
        paramwise['custom_keys'] = ConfigDict({**own['custom_keys'], **keys})
        wrapper['paramwise_cfg'] = paramwise
    clip = fragment.get('manpp_clip_grad')
    if clip is not None and wrapper.get('clip_grad') is None:
        wrapper['clip_grad'] = clip


def _check_single_label(config: Config) -> None:
    head = named_class((config.model.get('head') or {}).get('type'), 'model', config.get('default_scope'))
    kinds = {base.__name__ for base in getattr(head, '__mro__', ())} & {'MultiLabelClsHead', 'MultiTaskHead'}
    if kinds:
        raise ValueError(
            f'model.head.type={config.model.head["type"]!r} predicts several labels per image, but the '
            'default local heads predict one: write model.backbone.auxiliary by hand (docs/config.md)'
        )


def fragment_of(twin: type[LocalBackbone]) -> Config:
    """Return the config fragment for the task of a local backbone."""
    task = _TASKS[twin.auxiliary_type.registry.scope]
    return Config.fromfile(Path(config_folder(OWN)) / f'_base_/{task}.py')


def classes_of(model: Mapping) -> int:
    """Return the number of classes of a model's heads; for a panoptic model, the number of things.

    Raises:
        ValueError: No head sets it.
    """
    roi_head = model.get('roi_head') or {}
    names = ('panoptic_head', 'decode_head', 'bbox_head', 'mask_head', 'head')
    for head in (roi_head.get('bbox_head'), *(model.get(name) for name in names)):
        head = _last(head) or {}
        for key in ('num_things_classes', 'num_classes'):
            if isinstance(head.get(key), int):
                return head[key]
    raise ValueError(
        'no head of the model sets num_classes, which the auxiliary heads need: set it, for example in '
        'model.bbox_head or model.head, or write model.backbone.auxiliary by hand (docs/config.md)'
    )


def _last(head: Any) -> Any:
    """Return a head, or the last one of a cascade."""
    return head[-1] if isinstance(head, Sequence) and head else head


def imported(imports: Mapping | None) -> list[str]:
    """Return the modules named in ``custom_imports``, given as a single one or a list."""
    names = (imports or {}).get('imports') or []
    return [names] if isinstance(names, str) else list(names)


def _auxiliary_only(hook: Mapping, config: Config) -> bool:
    """Return whether a hook has no effect without auxiliary networks."""
    return named_class(hook['type'], 'hook', config.get('default_scope')) in (MomentumHook, LocalScalarsHook)


def _named(hooks: Iterable[Mapping], config: Config, kind: type, key: str) -> set[str]:
    """Return the names listed in the config's hooks of a type."""
    found: set[str] = set()
    for hook in hooks:
        if named_class(hook['type'], 'hook', config.get('default_scope')) is kind:
            found |= set(hook[key])
    return found


def without_local(config: Config) -> Config:
    """Return a block-local config with the plain backbone and without the hooks that need a local one.

    Args:
        config: The config; not modified.
    """
    config = copy.deepcopy(config)
    config.model = plain_model(config)
    config.custom_hooks = [hook for hook in config.get('custom_hooks') or [] if not _local_only(hook, config)]
    for name, hook in list((config.get('default_hooks') or {}).items()):
        if hook and _local_only(hook, config):
            config.default_hooks[name] = None
    return config


def _local_only(hook: Mapping, config: Config) -> bool:
    return getattr(named_class(hook['type'], 'hook', config.get('default_scope')), 'local_only', False)
