"""What each way to train a config needs, predicted from a few steps on small images."""

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
"""By how much the prediction of an end-to-end step on images of four times the pixels may be off; beyond it real steps
are measured. Where the backbone no longer holds the peak, the same bytes weigh about twice as much."""

_Needs = Callable[[int, Size], int]
_Peak = Callable[[int, Size], float]


@dataclass
class Prediction:
    """What a way to train needs.

    Attributes:
        way: The way.
        peak_bytes: Peak beyond what is there before the step, that of the optimizer's step included.
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
        family: The local backbone that ways with blocks need; None where there is none, where nothing of it trains or
            where it refuses an argument of the config's own; then ``faults`` says which.

    Raises:
        ValueError: The model has no backbone of its own, or a real step does not run either.
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
                    f'{_line(error)}). Images of another size: --input N H W of tools/fit.py'
                ) from error
        self.family, self.faults = self._family()

    def _doubt(self) -> str:
        """Take a step on small images, and why it does not tell; '' if it does."""
        try:
            self._take_step()
        except Exception as error:  # whatever a model does on images that it is not made for
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
        return f'the prediction for {_words(other)} is {factor:.2f} of what they take'

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
        """Whether anything of the backbone trains."""
        self.early = tuple(early_heads(step.model))
        """Heads whose losses can be taken early."""
        self.modules = tuple(name for name in names if name in ran)
        """Neck and heads that can be checkpointed."""
        self.parts = tuple(f'backbone.{name}' for name in calls.names)
        """Modules of a backbone that is none of a family's, which can be checkpointed one by one."""

    def _family(self) -> tuple[type[LocalBackbone] | None, tuple[str, ...]]:
        twin = twin_of(self.config) if self.trains else None
        if twin is not None and local_class(self.config) is None:
            try:
                own_cuts(apply_way(self.config, Way('exact', EXACT, ())))
            except ValueError as error:  # an argument of the backbone that its twin refuses
                return None, (_line(error),)
        return twin, ()


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
        room: Bytes for everything, which cuts are planned for; None: for about the lowest need.
        survey: What was found for another batch; None: it is taken now.
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
        own = bool(self.config.model.backbone.get('with_cp'))  # who set it keeps it
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
        config = apply_way(self.config, way('exact', ()))
        profile = ExactProfile(config, self.survey.amp, self.survey.probe)
        found = []
        if whole in methods:
            plain = way(whole, () if checkpointed else None)
            if plain != Way('end_to_end', END_TO_END):  # which is there already
                found.append(self._whole(plain, profile.step, config))
        if 'exact' not in methods:
            return found
        if keep_cuts:
            return [*found, self._taken(way('exact', own_cuts(self.config)))]
        fixed = fixed_bytes(config)
        plans = profile.plans(self.batch, self.size, fixed.stepping)[1:]
        enough = found and checkpointed and self.room is not None and found[-1].total_bytes <= self.room
        if not plans or enough:
            return found  # a single unit trains, or a cut besides would only cost work
        plan = choose_plan(plans, self._before(fixed, config), self.room)

        def lowest(batch: int, size: Size) -> float:
            return min(each.peak_bytes for each in profile.plans(batch, size))

        work = profile.step.flops_at(self.batch, padded(config, self.size)) + plan.work
        return [*found, self._prediction(way('exact', plan.cuts), config, fixed, lowest, work, plan.peak_bytes)]

    def _without_family(self, whole: str, way: Callable[..., Way]) -> list[Prediction]:
        """The ways of a backbone that is none of a family's: its parts are checkpointed by name."""
        found = way(whole, None)
        if whole == 'checkpointed':
            if not self.survey.parts:
                return []
            found = Way(found.method, found.mode, None, None, found.early, (*self.survey.parts, *found.modules))
        if not found.early and not found.modules:
            return []  # as it is, which is there already
        return [self._taken(found)]

    def _local_ways(self, method: str, way: Callable[..., Way], keep_cuts: bool) -> list[Prediction]:
        """Block-local training, its cuts planned."""
        if keep_cuts:
            return [self._taken(way(method, own_cuts(self.config)))]
        config = apply_way(self.config, way(method, ()))
        profile = LocalProfile(config, self.survey.amp, self.survey.probe)
        fixed = fixed_bytes(config, local=False)
        plans = profile.plans(self.batch, self.size, fixed.stepping)[1:]
        if not plans:
            raise ValueError('a single unit of the backbone trains: there is no place for a cut')
        before = self._before(fixed, config)

        def lowest(batch: int, size: Size) -> float:
            return min(each.needed for each in profile.plans(batch, size, fixed.stepping)[1:])

        while True:
            plan = choose_plan(plans, before, self.room)
            taken = self._taken(way(method, plan.cuts))
            # A plan adds up units; its own step may need a little more than that, and the budget with it.
            missed = self.room is not None and before + plan.needed <= self.room < taken.total_bytes
            plans = [each for each in plans if each.needed < plan.needed]
            if not (missed and plans):
                return [replace(taken, needs=self._needs(config, fixed, lowest))]

    def _taken(self, way: Way) -> Prediction:
        """What a step in a way says."""
        config = apply_way(self.config, way)
        return self._whole(way, footprint(config, mode_of(config), self.survey.amp, self.survey.probe), config)

    def _whole(self, way: Way, step: Footprint, config: Config) -> Prediction:
        """What a step's own footprint says."""
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
    return f'{images} image{"s" if images > 1 else ""} of {height}x{width}'


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [''])[0][:160]
