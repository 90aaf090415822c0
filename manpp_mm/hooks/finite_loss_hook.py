"""The hook that stops a training whose losses are no longer finite."""

from math import isfinite

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..models.local_backbone import unwrapped
from .trunk_optimizer import trunk_optim_wrapper


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops training at a loss that is NaN or infinite and names block, loss and iteration.

    It reads what the message hub holds of this iteration's losses and adds no synchronisation with the device. It runs
    before a checkpoint is saved, so that no file holds the broken weights. Leave it out of ``custom_hooks`` to go on
    with such losses.

    Args:
        patience: Under a loss scaler, which skips such steps: how many iterations in a row are tolerated before the
            one that stops. Without one the first stops.

    Raises:
        ValueError: ``patience`` is negative.

    Example:
        >>> custom_hooks = [dict(type='FiniteLossHook', patience=20)]
    """

    def __init__(self, patience: int = 20) -> None:
        if patience < 0:
            raise ValueError(f'FiniteLossHook: patience={patience} must be 0 or a positive number of iterations')
        self.patience = patience
        self._in_a_row = 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: 'dict | None' = None, outputs: 'dict | None' = None
    ) -> None:
        """Look at this iteration's losses.

        Raises:
            RuntimeError: One is NaN or infinite.
        """
        found = {}
        for name in outputs or {}:
            value = runner.message_hub.get_scalar(f'train/{name}').current() if 'loss' in name else 0.0
            if not isfinite(value) and name != 'loss':
                found[name] = value
        if not found:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        scaler = getattr(
            trunk_optim_wrapper(runner.optim_wrapper, unwrapped(runner.model).backbone), 'loss_scaler', None
        )
        scaled = scaler is not None and scaler.is_enabled()
        if scaled and self._in_a_row <= self.patience:
            return
        # In the order of forward: what broke first makes everything after it NaN.
        blocks = [name for name in found if name.startswith('block')]
        name = (blocks or list(found))[0]
        where = f'local block {name.split(".")[0].removeprefix("block")}' if blocks else 'the last block and the heads'
        others = [other for other in found if other != name]
        raise RuntimeError(
            f'{name} is {found[name]} at iteration {runner.iter + 1}, the loss of {where}'
            + (f' ({self._in_a_row} iterations in a row)' if scaled else '')
            + (f'; with it {", ".join(others)}' if others else '')
            + '. Checkpoints saved so far are untouched. Lower optim_wrapper.optimizer.lr or lengthen its warm-up, set '
            'optim_wrapper.clip_grad=dict(max_norm=35), or look at the data; remove FiniteLossHook from custom_hooks '
            'to go on all the same.'
        )
