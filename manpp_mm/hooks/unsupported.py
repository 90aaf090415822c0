"""Refusal of setups in which block-local training would fail late or silently train something else."""

from mmengine.optim import BaseOptimWrapper, OptimWrapperDict
from mmengine.runner import FlexibleRunner, Runner
from torch import nn

from ..backbones import find_local_backbone, unwrapped
from .trunk_optimizer import trunk_optim_wrapper


def refuse_unsupported(runner: Runner) -> None:
    """Refuse setups in which block-local training does not work; a runner that only tests passes.

    Raises:
        ValueError: FlexibleRunner, an FSDP wrapper, ``torch.compile`` on the whole model, or DDP's ``static_graph``
            with gradient accumulation; the message names the config key.
    """
    if not isinstance(runner.optim_wrapper, (BaseOptimWrapper, OptimWrapperDict)):
        return  # only built for training
    if isinstance(runner, FlexibleRunner):
        raise ValueError(
            'block-local training is not made for FlexibleRunner and its strategies: remove runner_type and strategy '
            'from the config (several GPUs: --launcher pytorch, which wraps the model in DDP)'
        )
    if _is_sharded(runner.model):
        raise ValueError(
            'FSDP shards parameters that a local block needs whole when it computes its gradients, so nothing would be '
            "trained: use model_wrapper_cfg=dict(type='MMDistributedDataParallel'), or omit it"
        )
    if runner.cfg.get('compile') not in (None, False) or hasattr(runner.model, '_orig_mod'):
        raise ValueError(
            'compile compiles the whole training step, but local blocks compute their gradients inside forward: '
            'remove compile from the config'
        )
    if getattr(runner.model, 'static_graph', False):
        wrapper = trunk_optim_wrapper(runner.optim_wrapper, find_local_backbone(unwrapped(runner.model)))
        if wrapper._accumulative_counts > 1:
            raise ValueError(
                'DDP with static_graph=True cannot accumulate gradients (a limit of torch): set '
                'optim_wrapper.accumulative_counts=1 or model_wrapper_cfg.static_graph=False'
            )


def _is_sharded(model: nn.Module) -> bool:
    # By name: FSDP2 gives each module its own class, and not every torch version has both.
    names = {base.__name__ for module in model.modules() for base in type(module).__mro__}
    return bool(names & {'FSDPModule', 'FullyShardedDataParallel'})
