"""A hook that logs scaling biases and momentum distances of the auxiliary networks."""

import torch
from mmengine.hooks import LoggerHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..backbones import find_local_backbone, unwrapped
from .model_hook import TrainingHook


@HOOKS.register_module()
class LocalScalarsHook(TrainingHook):
    """Logs the scaling biases and the distances of the momentum branches from the units that they follow.

    ``block0.scaling`` is s of block 0. ``block0.momentum_distance`` is the norm of the parameter difference between
    branch and unit, divided by the unit's norm. They go to the Runner's message hub, and from there to its log,
    TensorBoard and ``vis_data/scalars.json``. They are computed only when the logger writes, so other iterations do not
    wait for the device. Block losses are logged without this hook.
    """

    local_only = True

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: 'dict | None' = None, outputs: 'dict | None' = None
    ) -> None:
        """Compute this iteration's values if the logger is about to write."""
        loggers = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
        if any(self.every_n_train_iters(runner, hook.interval) for hook in loggers):
            for name, value in local_scalars(unwrapped(runner.model)).items():
                runner.message_hub.update_scalar(f'train/{name}', value)


@torch.no_grad()
def local_scalars(model: torch.nn.Module) -> dict[str, float]:
    """Return the scaling biases and momentum distances of a model by their logged names."""
    backbone = find_local_backbone(model)
    scalars = {}
    for block, (network, units) in backbone.trained_networks().items():
        if network.branches.scaling is not None:
            scalars[f'block{block}.scaling'] = float(network.branches.scaling)
        if network.branches.momentum is not None:
            source: list[torch.Tensor] = [p for unit in units for p in unit.parameters()]
            difference = torch._foreach_sub(source, [*network.branches.momentum.parameters()])
            norms = [torch.stack(torch._foreach_norm(values)).norm() for values in (difference, source)]
            scalars[f'block{block}.momentum_distance'] = float(norms[0] / norms[1])
    return scalars
