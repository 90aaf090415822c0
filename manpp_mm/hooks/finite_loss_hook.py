"""A hook that stops a training at a loss that is not finite."""

from math import isfinite

from mmengine.optim import OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .model_hook import TrainingHook

_WAYS_OUT = (
    'Lower optim_wrapper.optimizer.lr or lengthen its warm-up, set optim_wrapper.clip_grad=dict(max_norm=35), or check '
    'the data; remove FiniteLossHook from custom_hooks to continue anyway.'
)


@HOOKS.register_module()
class FiniteLossHook(TrainingHook):
    """Stops training at a NaN or infinite loss and names block, loss and iteration.

    It reads this iteration's losses from the message hub and adds no synchronization with the device. Before a
    checkpoint is saved, it also checks the weights, which another rank's loss or this step may have broken: such
    weights are never saved, and no older file is deleted for them. To continue anyway, remove it from
    ``custom_hooks``.

    Args:
        patience: With a loss scaler, which skips such steps: the number of consecutive iterations to tolerate. Without
            a loss scaler, the first one stops the training.

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

    def before_train(self, runner: Runner) -> None:
        """Reset the count."""
        self._in_a_row = 0

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the weights and buffers to be saved.

        Raises:
            RuntimeError: A value is NaN or infinite.
        """
        broken = [
            name
            for name, value in checkpoint['state_dict'].items()
            if value.is_floating_point() and not value.isfinite().all()
        ]
        if broken:
            raise RuntimeError(
                f'{len(broken)} weights or buffers are NaN or infinite at iteration {checkpoint["meta"]["iter"]} '
                f'({", ".join(broken[:3])}{", ..." if len(broken) > 3 else ""}): this checkpoint was not saved, '
                f'earlier ones are intact. {_WAYS_OUT}'
            )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: 'dict | None' = None, outputs: 'dict | None' = None
    ) -> None:
        """Check this iteration's losses.

        Raises:
            RuntimeError: A loss is NaN or infinite.
        """
        found = {}
        for name in outputs or {}:
            if 'loss' in name and name != 'loss':
                value = runner.message_hub.get_scalar(f'train/{name}').current()
                if not isfinite(value):
                    found[name] = value
        if not found:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        wrapper = runner.optim_wrapper
        wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        scalers = [getattr(each, 'loss_scaler', None) for each in wrappers]
        scaled = any(scaler is not None and scaler.is_enabled() for scaler in scalers)
        if scaled and self._in_a_row <= self.patience:
            return
        # In forward order: the first broken loss makes everything after it NaN.
        blocks = [name for name in found if name.startswith('block')]
        name = (blocks or list(found))[0]
        where = f'local block {name.split(".")[0].removeprefix("block")}' if blocks else 'the last block and the heads'
        others = [other for other in found if other != name]
        raise RuntimeError(
            f'{name} is {found[name]} at iteration {runner.iter + 1}, the loss of {where}'
            + (f' ({self._in_a_row} iterations in a row)' if scaled else '')
            + (f'; also {", ".join(others)}' if others else '')
            + f'. Earlier checkpoints are intact. {_WAYS_OUT}'
        )
