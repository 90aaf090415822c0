"""A hook that trains part of the schedule with exact gradients."""

import re
from collections.abc import Iterable

from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from ..backbones import LocalBackbone, find_local_backbone, unwrapped
from ..mode import EXACT, LOCAL
from .model_hook import Handle, ModelHook, Optimizers

_BLOCK_SCALAR = re.compile(r'train/block\d+\.')


@HOOKS.register_module()
class GradientSwitchHook(ModelHook):
    """Switches a local backbone to exact gradients for a stretch of the schedule, and back.

    During the stretch, each block is checkpointed and the task's gradient flows through all blocks: the gradients of
    end-to-end training at about the memory of local training. Meanwhile, the auxiliary networks are not trained;
    momentum branches keep following their units. The phase depends only on the iteration, so a resumed run keeps it.

    Args:
        begin: Start of the stretch, inclusive. An integer counts epochs from 0 (iterations with ``by_epoch=False``), a
            float in [0, 1] is a fraction of the schedule.
        end: End of the stretch, exclusive; None for the end of the schedule.
        by_epoch: Whether integers count epochs or iterations.

    Raises:
        ValueError: ``begin`` or ``end`` has another type, is negative or a fraction above 1, or the stretch is empty.
            At the start of training: the stretch exceeds the schedule, it is given in epochs but the loop has none,
            the backbone has ``gradient='exact'``, or DDP's ``static_graph`` is set.

    Example:
        >>> custom_hooks = [*_base_.manpp_hooks, dict(type='GradientSwitchHook', end=0.25)]
    """

    priority = 'NORMAL'
    local_only = True

    def __init__(self, begin: 'int | float' = 0, end: 'int | float | None' = None, by_epoch: bool = True, every: int = 1) -> None:
        for name, value in (('begin', begin), ('end', end)):
            if not _is_time(value) and (name, value) != ('end', None):
                raise ValueError(
                    f'GradientSwitchHook: {name}={value!r} must be a number of epochs (iterations with '
                    'by_epoch=False), or a float in [0, 1] for a fraction of the schedule'
                )
        self.begin = begin
        self.end = end
        self.by_epoch = by_epoch
        self.every = every
        self._stretch = range(0)
        if end is not None and type(begin) is type(end):
            self._check_order(begin, end)

    def _check_order(self, begin: 'int | float', end: 'int | float') -> None:
        if end <= begin:
            raise ValueError(
                f'GradientSwitchHook: end={self.end} is not after begin={self.begin}: the exact stretch would be empty'
            )

    def before_train(self, runner: Runner) -> None:
        """Compute the iterations of the stretch; refuse setups that cannot be switched.

        Raises:
            ValueError: See the class.
        """
        backbone = find_local_backbone(unwrapped(runner.model))
        if backbone.cuts and not len(backbone.auxiliary):
            raise ValueError(
                "GradientSwitchHook switches a local backbone: remove model.backbone.gradient='exact', or remove the "
                'hook to use exact gradients throughout'
            )
        if getattr(runner.model, 'static_graph', False):
            raise ValueError(
                'GradientSwitchHook changes the graph, which DDP with static_graph=True forbids: set '
                'model_wrapper_cfg.static_graph=False'
            )
        total = runner.max_iters
        first = self._iteration(runner, self.begin)
        stop = total if self.end is None else self._iteration(runner, self.end)
        if first >= total:
            raise ValueError(
                f'GradientSwitchHook: begin={self.begin} is past the end of the schedule ({total} iterations)'
            )
        if stop > total:
            raise ValueError(
                f'GradientSwitchHook: end={self.end} is past the end of the schedule ({total} iterations); use None to '
                'end with it'
            )
        self._check_order(first, stop)
        self._stretch = range(first, stop)
        super().before_train(runner)

    def changes(self, model: nn.Module, optim_wrapper: 'Optimizers | None' = None) -> Iterable[Handle]:
        """Return a handle that switches back at the end; :meth:`before_train_iter` does the switching."""
        self._backbone = find_local_backbone(model)
        return [_SwitchedBack(self._backbone)]

    def _iteration(self, runner: Runner, place: 'int | float') -> int:
        if isinstance(place, float):
            return round(place * runner.max_iters)
        if not self.by_epoch or place == 0:
            return place
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ValueError(
                f'GradientSwitchHook: {place} counts epochs, but {type(runner.train_loop).__name__} has none: set '
                'by_epoch=False to count iterations'
            )
        return place * len(runner.train_dataloader)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: 'dict | None' = None) -> None:
        """Switch at the start and the end of the stretch."""
        gradient = (EXACT if runner.iter in self._stretch else LOCAL).backbone
        if self.every > 1:
            if runner.iter in self._stretch and (runner.iter - self._stretch.start) % self.every:
                gradient = LOCAL.backbone
            if self._backbone.gradient != gradient:
                self._backbone.switch_gradient(gradient)
            return
        if self._backbone.gradient != gradient:
            self._backbone.switch_gradient(gradient)
            for name in [name for name in runner.message_hub.log_scalars if _BLOCK_SCALAR.match(name)]:
                del runner.message_hub.log_scalars[name]  # otherwise the log repeats the last block losses
            runner.logger.info(f'From iteration {runner.iter} on, the backbone trains with {gradient} gradients.')


class _SwitchedBack:
    """Restores the previous kind of gradient."""

    def __init__(self, backbone: LocalBackbone) -> None:
        self.backbone = backbone
        self.before = backbone.gradient

    def remove(self) -> None:
        """Switch back."""
        self.backbone.switch_gradient(self.before)


def _is_time(value: object) -> bool:
    """Return whether a value is a count or a fraction of the schedule."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return value >= 0 and (isinstance(value, int) or value <= 1)
