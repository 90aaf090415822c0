"""The hook that stops a training whose losses are no longer finite."""

from math import isfinite

from mmengine.optim import OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .model_hook import TrainingHook

_WAYS_OUT = (
    'Lower optim_wrapper.optimizer.lr or lengthen its warm-up, set optim_wrapper.clip_grad=dict(max_norm=35), or look '
    'at the data; remove FiniteLossHook from custom_hooks to go on all the same.'
)


@HOOKS.register_module()
class FiniteLossHook(TrainingHook):
    """Stops training at a loss that is NaN or infinite and names block, loss and iteration.

    It reads what the message hub holds of this iteration's losses and adds no synchronisation with the device. Before a
    checkpoint is written it looks at the weights too, which another rank's loss or this very step may have broken, so
    that no file holds such weights and none is deleted for it. Leave it out of ``custom_hooks`` to go on all the same.

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

    def before_train(self, runner: Runner) -> None:
        """Start counting anew."""
        self._in_a_row = 0

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at the weights and buffers that are about to be saved.

        Raises:
            RuntimeError: One is NaN or infinite.
        """
        broken = [
            name
            for name, value in checkpoint['state_dict'].items()
            if value.is_floating_point() and not value.isfinite().all()
        ]
        if broken:
            raise RuntimeError(
                f'{len(broken)} weights or buffers are NaN or infinite at iteration {checkpoint["meta"]["iter"]} '
                f'({", ".join(broken[:3])}{", ..." if len(broken) > 3 else ""}): this checkpoint was not saved, those '
                f'saved so far are untouched. {_WAYS_OUT}'
            )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: 'dict | None' = None, outputs: 'dict | None' = None
    ) -> None:
        """Look at this iteration's losses.

        Raises:
            RuntimeError: One is NaN or infinite.
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
        # In the order of forward: what broke first makes everything after it NaN.
        blocks = [name for name in found if name.startswith('block')]
        name = (blocks or list(found))[0]
        where = f'local block {name.split(".")[0].removeprefix("block")}' if blocks else 'the last block and the heads'
        others = [other for other in found if other != name]
        raise RuntimeError(
            f'{name} is {found[name]} at iteration {runner.iter + 1}, the loss of {where}'
            + (f' ({self._in_a_row} iterations in a row)' if scaled else '')
            + (f'; with it {", ".join(others)}' if others else '')
            + f'. Checkpoints saved so far are untouched. {_WAYS_OUT}'
        )
