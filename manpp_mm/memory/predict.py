"""Prediction of the memory of each way to train a config, from a few steps on small images."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ..backbones import LocalBackbone, local_class, mode_of
from ..backbones.config import without_networks
from ..hooks.sparing import early_heads, spared_modules
from ..local import Cut
from ..methods import MODE_OF, Way, apply_way, method_of, twin_of
from ..mode import END_TO_END, EXACT, Mode
from .choose import choose_plan
from .footprint import Footprint, Probe, footprint, padded, probing_step, small_probe
from .inputs import FixedBytes, Size, fixed_bytes, in_mixed_precision
from .profile import ExactProfile, LocalProfile

TRUSTED = 0.05
"""Tolerated relative error of the prediction for an end-to-end step on images with four times the pixels; beyond it,
real steps are measured. If the backbone no longer sets the peak, the same bytes weigh about twice as much."""

_Needs = Callable[[int, Size], int]
_Peak = Callable[[int, Size], float]


@dataclass
class Prediction:
    """The predicted memory and work of a way to train.

    Attributes:
        way: The way.
        peak_bytes: Peak in addition to the bytes before the step, including the optimizer step.
        static_bytes: Bytes before the step: parameters, buffers, optimizer state, images.
        work: Floating-point operations relative to end-to-end training.
        needs: A function that returns the total bytes for other images, with the best cuts for them.
    """

    way: Way
    peak_bytes: int
    static_bytes: int
    work: float
    needs: _Needs = field(repr=False)

    @property
    def total_bytes(self) -> int:
        """The total bytes."""
        return self.static_bytes + self.peak_bytes

    def largest_batch(self, room: int, size: Size) -> int:
        """Return the largest number of images per step that fits, 0 if not even one does."""
        high = 1
        while self.needs(high, size) <= room:
            high *= 2
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.needs(middle, size) <= room else (low, middle)
        return low


class Survey:
    """One small end-to-end step of a config: the reference, and the modules that can save memory.

    Args:
        config: The config of any detector or segmentor.
        batch: Images per step.
        size: Their height and width in pixels.

    Attributes:
        measured: Why small images do not predict the memory and real steps are measured; '' if they do.
        family: The local backbone needed to cut the model into blocks; None if there is none, if it is frozen or if it
            refuses an argument of the config; ``faults`` then says which.

    Raises:
        ValueError: The model has no ``backbone``, or a real step fails as well.
    """

    def __init__(self, config: Config, batch: int, size: Size) -> None:
        if not config.model.get('backbone'):
            raise ValueError(
                f'model.type={config.model.get("type")!r} has no backbone of its own (model.backbone): such models '
                'cannot be fitted'
            )
        self.config = config
        self.amp = in_mixed_precision(config)
        self.plain = apply_way(config, Way('end_to_end', END_TO_END))
        self.probe: Probe = small_probe(self.plain)
        self.measured = self._doubt()
        if self.measured:
            self.probe = (batch, padded(self.plain, size))
            try:
                self._take_step()
            except Exception as error:
                raise ValueError(
                    f'{self.measured}, and a step on {_words(self.probe)} fails, too ({type(error).__name__}: '
                    f'{_line(error)}). Try another image size with --input N H W of tools/fit.py'
                ) from error
        self.family, self.faults = self._family()

    def _doubt(self) -> str:
        """Run a step on small images and return why it does not predict the memory, '' if it does."""
        try:
            self._take_step()
        except Exception as error:  # anything can fail on unsuitable images
            return f'a step on {_words(self.probe)} fails ({type(error).__name__}: {_line(error)})'
        images, (height, width) = self.probe
        other = images - 1, (2 * height, 2 * width)
        try:
            found = footprint(self.plain, mode_of(self.plain), self.amp, other).peak_at(*other)
        except Exception as error:
            return f'a step on {_words(other)} fails ({type(error).__name__}: {_line(error)})'
        factor = self.step.peak_at(*other) / found
        if abs(factor - 1) <= TRUSTED:
            return ''
        return f'the prediction for {_words(other)} is {factor:.2f} of the real need'

    def _take_step(self) -> None:
        step = probing_step(self.plain, mode_of(self.plain), self.probe, self.amp)
        names = spared_modules(step.model)
        modules = dict(step.model.named_modules())
        ran: set[str] = set()
        calls = _Calls(step.model.backbone)
        for name in names:
            modules[name].register_forward_pre_hook(lambda *_, name=name: ran.add(name))
        with Footprint(step, self.probe) as self.step:
            step.run()
        self.trains = any(p.requires_grad for p in step.model.backbone.parameters())
        """Whether any part of the backbone trains."""
        self.early = tuple(early_heads(step.model))
        """Heads that can have an early loss."""
        self.modules = tuple(name for name in names if name in ran)
        """Neck and heads that can be checkpointed."""
        self.parts = tuple(f'backbone.{name}' for name in calls.names)
        """Modules of a backbone without a local class that can be checkpointed one by one."""

    def _family(self) -> tuple[type[LocalBackbone] | None, tuple[str, ...]]:
        twin = twin_of(self.config) if self.trains else None
        if twin is not None and local_class(self.config) is None:
            try:
                own_cuts(apply_way(self.config, Way('exact', EXACT, ())))
            except ValueError as error:  # the local class refuses an argument of the backbone
                return None, (_line(error),)
        return twin, ()


class _Calls:
    """Records the modules that a backbone's own forward calls, and the members of sequential modules."""

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
        # Members of a sequential module are recorded one by one.
        self._depth += not isinstance(module, nn.Sequential)

    def _end(self, module: nn.Module, args: tuple, output: object) -> None:
        self._depth -= not isinstance(module, nn.Sequential)

    @property
    def names(self) -> list[str]:
        """Names of the modules that train and consist of more than one layer."""
        return [
            name
            for name, module in self._found.items()
            if any(True for _ in module.children()) and any(p.requires_grad for p in module.parameters())
        ]


def own_cuts(config: Config) -> list[Cut]:
    """Return the cuts that a config sets, or that follow from its ``local_blocks``.

    Raises:
        ValueError: The cuts are to be planned, or do not fit the backbone.
    """
    init_default_scope(config.get('default_scope', 'mmengine'))
    return MODELS.build(without_networks(config.model.backbone)).cuts


class Predictor:
    """Predicts the memory and work of ways to train a config.

    Args:
        config: The config of any detector or segmentor.
        batch: Images per step.
        size: Their height and width in pixels.
        room: Bytes available for everything, for which cuts are planned; None plans for about the lowest need.
        survey: The survey from another batch; None runs a new one.
    """

    def __init__(
        self, config: Config, batch: int, size: Size, room: int | None = None, survey: 'Survey | None' = None
    ) -> None:
        self.config = config
        self.batch = batch
        self.size = size
        self.room = room
        self.survey = survey or Survey(config, batch, size)
        self.faults = list(self.survey.faults)
        """Ways that were not possible, and why."""
        self.family = self.survey.family
        self._reference = self.survey.step.flops_at(batch, padded(config, size))

    def predictions(
        self, methods: Sequence[str], keep_cuts: bool = False, stride: int | None = None
    ) -> list[Prediction]:
        """Predict the ways of some methods.

        Args:
            methods: Any of :data:`manpp_mm.methods.METHODS`, or the config's own.
            keep_cuts: Whether to use the config's own cuts instead of planning them.
            stride: Stride of the auxiliary networks added to a config without them; None uses the fragment's.

        Raises:
            ValueError: No way is possible; the message says why.
        """
        found: list[Prediction] = []
        if 'end_to_end' in methods:
            plain = Way('end_to_end', END_TO_END)
            found.append(self._whole(plain, self.survey.step, self.survey.plain))
        own = bool(self.config.model.backbone.get('with_cp'))  # the config's own setting is kept
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
        except Exception as error:  # for example a head that cannot be checkpointed: other ways remain
            fault = f'{type(error).__name__}: {_line(error)}'
            if fault not in self.faults:
                self.faults.append(fault)
            return []

    def _levels(self) -> Iterator[tuple[tuple, tuple, Callable[[Mode], Mode]]]:
        """Yield the levels of saving memory in neck and heads."""
        early, modules = self.survey.early, self.survey.modules
        yield early, (), Mode.with_early_loss if early else (lambda mode: mode)
        if modules:
            yield early, modules, Mode.with_heads_spared

    def _exact_ways(
        self, methods: Sequence[str], way: Callable[..., Way], checkpointed: bool, keep_cuts: bool
    ) -> list[Prediction]:
        """Return the ways with end-to-end gradients."""
        whole = 'checkpointed' if checkpointed else 'end_to_end'
        if self.family is None:
            return self._without_family(whole, way) if whole in methods else []
        if whole not in methods and 'exact' not in methods:
            return []
        config = apply_way(self.config, way('exact', ()))
        profile = ExactProfile(config, self.survey.amp, self.survey.probe)
        found = []
        if whole in methods:
            plain = way(whole, () if checkpointed else None)
            if plain != Way('end_to_end', END_TO_END):  # which is already in the list
                found.append(self._whole(plain, profile.step, config))
        if 'exact' not in methods:
            return found
        if keep_cuts:
            return [*found, self._taken(way('exact', own_cuts(self.config)))]
        fixed = fixed_bytes(config)
        plans = profile.plans(self.batch, self.size, fixed.stepping)[1:]
        enough = found and checkpointed and self.room is not None and found[-1].total_bytes <= self.room
        if not plans or enough:
            return found  # only one unit trains, or another cut would only cost work
        plan = choose_plan(plans, self._before(fixed, config), self.room)

        def lowest(batch: int, size: Size) -> float:
            return min(each.peak_bytes for each in profile.plans(batch, size))

        work = profile.step.flops_at(self.batch, padded(config, self.size)) + plan.work
        return [*found, self._prediction(way('exact', plan.cuts), config, fixed, lowest, work, plan.peak_bytes)]

    def _without_family(self, whole: str, way: Callable[..., Way]) -> list[Prediction]:
        """Return the ways for a backbone without a local class, whose parts are checkpointed by name."""
        found = way(whole, None)
        if whole == 'checkpointed':
            if not self.survey.parts:
                return []
            found = Way(found.method, found.mode, None, None, found.early, (*self.survey.parts, *found.modules))
        if not found.early and not found.modules:
            return []  # unchanged, which is already in the list
        return [self._taken(found)]

    def _local_ways(self, method: str, way: Callable[..., Way], keep_cuts: bool) -> list[Prediction]:
        """Return the ways of block-local training, with planned cuts."""
        if keep_cuts:
            return [self._taken(way(method, own_cuts(self.config)))]
        config = apply_way(self.config, way(method, ()))
        profile = LocalProfile(config, self.survey.amp, self.survey.probe)
        fixed = fixed_bytes(config, local=False)
        plans = profile.plans(self.batch, self.size, fixed.stepping)[1:]
        if not plans:
            raise ValueError('only one unit of the backbone trains, so there is no place for a cut')
        before = self._before(fixed, config)

        def lowest(batch: int, size: Size) -> float:
            return min(each.needed for each in profile.plans(batch, size, fixed.stepping)[1:])

        while True:
            plan = choose_plan(plans, before, self.room)
            taken = self._taken(way(method, plan.cuts))
            # A plan adds up units; its real step may need slightly more than that and exceed the budget.
            missed = self.room is not None and before + plan.needed <= self.room < taken.total_bytes
            plans = [each for each in plans if each.needed < plan.needed]
            if not (missed and plans):
                return [replace(taken, needs=self._needs(config, fixed, lowest))]

    def _taken(self, way: Way) -> Prediction:
        """Predict a way from a step of its own."""
        config = apply_way(self.config, way)
        return self._whole(way, footprint(config, mode_of(config), self.survey.amp, self.survey.probe), config)

    def _whole(self, way: Way, step: Footprint, config: Config) -> Prediction:
        """Predict a way from the footprint of a step."""
        size = padded(config, self.size)
        work = step.flops_at(self.batch, size)
        return self._prediction(way, config, fixed_bytes(config), step.peak_at, work, step.peak_at(self.batch, size))

    def _prediction(
        self, way: Way, config: Config, fixed: FixedBytes, peak_at: _Peak, work: float, peak: int
    ) -> Prediction:
        return Prediction(
            way,
            max(peak, fixed.stepping),
            self._before(fixed, config),
            work / self._reference,
            self._needs(config, fixed, peak_at),
        )

    def _before(self, fixed: FixedBytes, config: Config) -> int:
        return fixed.before(self.batch, padded(config, self.size))

    @staticmethod
    def _needs(config: Config, fixed: FixedBytes, peak_at: _Peak) -> _Needs:
        def needs(batch: int, size: Size) -> int:
            size = padded(config, size)
            return fixed.before(batch, size) + max(round(peak_at(batch, size)), fixed.stepping)

        return needs


def in_half(config: Config) -> Config:
    """Return a copy of a config that trains in mixed precision."""
    config = copy.deepcopy(config)
    config.optim_wrapper.type = 'AmpOptimWrapper'
    return config


def methods_for(config: Config, method: str | None, every: bool = False) -> tuple[str, ...]:
    """Return the methods to choose from.

    Args:
        config: The config; a block-local one keeps its own method.
        method: The method that the user requested, or None.
        every: Whether to list block-local training in addition to the ways with end-to-end gradients.
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
    return f'{images} image{"s" if images > 1 else ""} of {height}x{width}'


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [''])[0][:160]
