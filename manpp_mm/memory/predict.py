"""What each way to train a config needs, predicted from a few steps on small images."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ..backbones import local_class, mode_of
from ..backbones.config import without_networks
from ..hooks.sparing import early_heads, spared_modules
from ..local import Cut
from ..methods import MODE_OF, Way, apply_way, method_of, twin_of
from ..mode import END_TO_END, Mode
from .choose import choose_plan, least_again
from .footprint import Footprint, Probe, footprint, padded, probing_step, small_probe
from .inputs import Size, input_bytes, model_bytes
from .profile import ExactProfile, LocalProfile

TRUSTED = 0.1
"""By how much the prediction of a step on larger images may be off; beyond it real steps are measured."""

_Needs = Callable[[int, Size], int]


@dataclass
class Prediction:
    """What a way to train needs.

    Attributes:
        way: The way.
        peak_bytes: Peak beyond what is there before the step.
        static_bytes: What is there before the step: parameters, buffers, optimizer state, images.
        work: Floating-point operations relative to end-to-end training.
        needs: Bytes of everything for other images, with the cuts that are best for them.
    """

    way: Way
    peak_bytes: int
    static_bytes: int
    work: float
    needs: _Needs = field(repr=False)

    @property
    def total_bytes(self) -> int:
        """Bytes of everything."""
        return self.static_bytes + self.peak_bytes

    def largest_batch(self, room: int, size: Size) -> int:
        """The most images a step for which a number of bytes suffices, 0 if it does not for one."""
        high = 1
        while self.needs(high, size) <= room:
            high *= 2
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.needs(middle, size) <= room else (low, middle)
        return low


class Survey:
    """One small step of a config end to end: the reference, and which of its modules can spare memory.

    Args:
        config: Any detector's or segmentor's.
        batch: Images a step.
        size: Their height and width in pixels.

    Attributes:
        measured: Why steps on small images do not tell, and real ones are measured; '' where they do.
    """

    def __init__(self, config: Config, batch: int, size: Size) -> None:
        self.config = config
        self.amp = (config.optim_wrapper or {}).get('type') == 'AmpOptimWrapper'
        self.plain = apply_way(config, Way('end_to_end', END_TO_END))
        self.probe: Probe = small_probe(self.plain)
        self.measured = ''
        try:
            self._take_step()
        except Exception as error:  # whatever a model does on images that it is not made for
            self.measured = f'a step on {_words(self.probe)} fails ({type(error).__name__}: {_line(error)})'
        else:
            images, (height, width) = self.probe
            other = images - 1, (2 * height, width)
            found = footprint(self.plain, mode_of(self.plain), self.amp, other).peak_at(*other)
            factor = self.step.peak_at(*other) / found
            if abs(factor - 1) > TRUSTED:
                self.measured = (
                    f'from {_words(self.probe)} a step on {_words(other)} is predicted to take {factor:.2f} of what it '
                    'does'
                )
        if self.measured:
            self.probe = (batch, padded(self.plain, size))
            self._take_step()

    def _take_step(self) -> None:
        step = probing_step(self.plain, mode_of(self.plain), self.probe, self.amp)
        names = spared_modules(step.model)
        modules = dict(step.model.named_modules())
        ran: set[str] = set()
        calls = _Calls(step.model.backbone) if hasattr(step.model, 'backbone') else None
        for name in names:
            modules[name].register_forward_pre_hook(lambda *_, name=name: ran.add(name))
        with Footprint(step, self.probe) as self.step:
            step.run()
        self.early = tuple(early_heads(step.model))
        """Heads whose losses can be taken early."""
        self.modules = tuple(name for name in names if name in ran)
        """Neck and heads that can be checkpointed."""
        self.parts = tuple(f'backbone.{name}' for name in calls.names) if calls else ()
        """Modules of a backbone that is none of a family's, which can be checkpointed one by one."""


class _Calls:
    """The modules that a backbone's own forward calls; of a row of modules each."""

    def __init__(self, backbone: nn.Module) -> None:
        self._depth = 0
        self._found: dict[str, nn.Module] = {}
        for name, module in backbone.named_modules():
            if name and not isinstance(module, nn.ModuleList):
                module.register_forward_pre_hook(partial(self._begin, name))
                module.register_forward_hook(self._end, always_call=True)

    def _begin(self, name: str, module: nn.Module, args: tuple) -> None:
        if self._depth == 0 and not isinstance(module, nn.Sequential):
            self._found[name] = module
        # What stands in a row is looked at one by one.
        self._depth += not isinstance(module, nn.Sequential)

    def _end(self, module: nn.Module, args: tuple, output: object) -> None:
        self._depth -= not isinstance(module, nn.Sequential)

    @property
    def names(self) -> list[str]:
        """Those that train and hold more than a layer."""
        return [
            name
            for name, module in self._found.items()
            if any(True for _ in module.children()) and any(p.requires_grad for p in module.parameters())
        ]


def own_cuts(config: Config) -> list[Cut]:
    """The cuts that a config names, or that follow from its ``local_blocks``.

    Raises:
        ValueError: It leaves them to be planned, or they do not fit.
    """
    init_default_scope(config.get('default_scope', 'mmengine'))
    return MODELS.build(without_networks(config.model.backbone)).cuts


class Predictor:
    """Predicts what ways to train a config need.

    Args:
        config: Any detector's or segmentor's.
        batch: Images a step.
        size: Their height and width in pixels.
        room: Bytes for everything, which cuts are planned for; None: for about the lowest peak.
    """

    def __init__(self, config: Config, batch: int, size: Size, room: int | None = None) -> None:
        self.config = config
        self.batch = batch
        self.size = size
        self.room = room
        self.survey = Survey(config, batch, size)
        self.faults: list[str] = []
        """Ways that were not possible, and why."""
        self.family = twin_of(config)
        self._reference = self.survey.step.flops_at(batch, padded(config, size))

    def predictions(
        self, methods: Sequence[str], keep_cuts: bool = False, stride: int | None = None
    ) -> list[Prediction]:
        """What the ways of some methods need.

        Args:
            methods: Some of :data:`manpp_mm.methods.METHODS`, or the config's own.
            keep_cuts: Whether not to plan cuts, but to take the config's own.
            stride: Of the auxiliary networks of a config that has none; None: the fragment's.

        Raises:
            ValueError: None of them is possible; the message says why.
        """
        found: list[Prediction] = []
        if 'end_to_end' in methods:
            plain = Way('end_to_end', END_TO_END)
            found.append(self._whole(plain, self.survey.step, self.survey.plain))
        own = bool((self.config.model.get('backbone') or {}).get('with_cp')) and local_class(self.config) is not None
        for (early, modules, spare), checkpointed in product(self._levels(), (True,) if own else (False, True)):

            def way(
                method: str, cuts: 'Sequence[Cut] | None', early: tuple = early, modules: tuple = modules,
                spare: Callable = spare, checkpointed: bool = checkpointed,
            ) -> Way:  # fmt: skip
                mode = spare(self._mode(method).with_units_checkpointed(checkpointed))
                pooled = stride if mode.local else None
                return Way(method, mode, None if cuts is None else tuple(cuts), pooled, early, modules)

            found += self._attempt(self._exact_ways, methods, way, checkpointed, keep_cuts)
            for method in methods:
                if self._mode(method).local:
                    found += self._attempt(self._local_ways, method, way, keep_cuts)
        if not found:
            faults = '; '.join(self.faults) or 'its backbone has no parts that could be checkpointed'
            raise ValueError(f'{", ".join(methods)}: not possible for this config: {faults}')
        return found

    def _mode(self, method: str) -> Mode:
        return MODE_OF[method] if method in MODE_OF else mode_of(self.config)

    def _attempt(self, ways: Callable[..., list[Prediction]], *args: Any) -> list[Prediction]:
        try:
            return ways(*args)
        except Exception as error:  # a head that cannot be checkpointed, say: the other ways are none the worse
            fault = f'{type(error).__name__}: {_line(error)}'
            if fault not in self.faults:
                self.faults.append(fault)
            return []

    def _levels(self) -> Iterator[tuple[tuple, tuple, Callable[[Mode], Mode]]]:
        """How much neck and heads are spared."""
        early, modules = self.survey.early, self.survey.modules
        yield early, (), Mode.with_early_loss if early else (lambda mode: mode)
        if modules:
            yield early, modules, Mode.with_heads_spared

    def _exact_ways(
        self, methods: Sequence[str], way: Callable[..., Way], checkpointed: bool, keep_cuts: bool
    ) -> list[Prediction]:
        """The ways with end-to-end's gradients."""
        whole = 'checkpointed' if checkpointed else 'end_to_end'
        if self.family is None:
            return self._without_family(whole, way) if whole in methods else []
        if whole not in methods and 'exact' not in methods:
            return []
        uncut = way('exact', ())
        config = apply_way(self.config, uncut)
        profile = ExactProfile(config, self.survey.amp, self.survey.probe)
        found = []
        if whole in methods:
            plain = way(whole, () if checkpointed else None)
            if plain != Way('end_to_end', END_TO_END):  # which is there already
                found.append(self._whole(plain, profile.step, config))
        if 'exact' in methods and keep_cuts:
            kept = way('exact', own_cuts(self.config))
            config = apply_way(self.config, kept)
            found.append(
                self._whole(kept, footprint(config, mode_of(config), self.survey.amp, self.survey.probe), config)
            )
        elif 'exact' in methods:
            fixed = model_bytes(config)
            static = fixed + self.batch * input_bytes(padded(config, self.size))
            if found and checkpointed and self.room is not None and found[-1].total_bytes <= self.room:
                return found  # a cut besides would only cost work
            plan = least_again(profile.plans(self.batch, self.size)[1:], static, self.room)

            def needs(batch: int, size: Size) -> int:
                lowest = min(plan.peak_bytes for plan in profile.plans(batch, size))
                return fixed + batch * input_bytes(padded(config, size)) + lowest

            work = profile.step.flops_at(self.batch, padded(config, self.size)) + plan.work
            found.append(Prediction(way('exact', plan.cuts), plan.peak_bytes, static, work / self._reference, needs))
        return found

    def _without_family(self, whole: str, way: Callable[..., Way]) -> list[Prediction]:
        """The ways of a backbone that is none of a family's: its parts are checkpointed by name."""
        found = way(whole, None)
        if whole == 'checkpointed':
            if not self.survey.parts:
                return []
            found = Way(found.method, found.mode, None, None, found.early, (*self.survey.parts, *found.modules))
        if not found.early and not found.modules:
            return []  # as it is, which is there already
        config = apply_way(self.config, found)
        return [self._whole(found, footprint(config, mode_of(config), self.survey.amp, self.survey.probe), config)]

    def _local_ways(self, method: str, way: Callable[..., Way], keep_cuts: bool) -> list[Prediction]:
        """Block-local training, its cuts planned."""
        uncut = way(method, ())
        if keep_cuts:
            kept = way(method, own_cuts(self.config))
        else:
            config = apply_way(self.config, uncut)
            profile = LocalProfile(config, self.survey.amp, self.survey.probe)
            plans = profile.plans(self.batch, self.size)[1:]  # with a cut at least
            plan = choose_plan(plans, self._static(config, networks=False), self.room)
            kept = way(method, plan.cuts)
        config = apply_way(self.config, kept)
        step = footprint(config, mode_of(config), self.survey.amp, self.survey.probe)
        return [self._whole(kept, step, config)]

    def _static(self, config: Config, networks: bool = True) -> int:
        return model_bytes(config, networks) + self.batch * input_bytes(padded(config, self.size))

    def _whole(self, way: Way, step: Footprint, config: Config) -> Prediction:
        """What a step's own footprint says."""
        fixed = model_bytes(config)

        def needs(batch: int, size: Size) -> int:
            size = padded(config, size)
            return fixed + batch * input_bytes(size) + step.peak_at(batch, size)

        size = padded(config, self.size)
        return Prediction(
            way,
            step.peak_at(self.batch, size),
            fixed + self.batch * input_bytes(size),
            step.flops_at(self.batch, size) / self._reference,
            needs,
        )


def in_mixed_precision(config: Config) -> Config:
    """A copy of a config that trains in mixed precision."""
    config = copy.deepcopy(config)
    config.optim_wrapper.type = 'AmpOptimWrapper'
    return config


def methods_for(config: Config, method: str | None, every: bool = False) -> tuple[str, ...]:
    """The methods among which to choose.

    Args:
        config: The config; a block-local one keeps its own method.
        method: What the user asked for.
        every: Whether to list block-local training besides what keeps end-to-end's gradients.
    """
    if method is not None:
        return (method,)
    same = ('end_to_end', 'checkpointed', 'exact')
    if local_class(config) is None:
        return (*same, 'manpp') if every and twin_of(config) is not None else same
    own = method_of(config)
    return tuple(dict.fromkeys((*same, own))) if every else (own,)


def _words(probe: Probe) -> str:
    images, (height, width) = probe
    return f'{images} images of {height}x{width}'


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [''])[0][:160]
