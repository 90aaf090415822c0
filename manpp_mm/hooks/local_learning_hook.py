"""A hook that passes the batch's targets to a local backbone and adds its losses to the model's."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from ..backbones import LocalBackbone, find_local_backbone, unwrapped
from ..backbones.summary import block_table
from ..checkpoint_file import trained_config
from ..random_numbers import kept_generators
from ..step import Step
from .changed_keys import changed_keys
from .model_hook import Handle, ModelHook, Optimizers
from .momentum_hook import MomentumHook
from .trunk_optimizer import loss_scale, trunk_optim_wrapper
from .unsupported import refuse_unsupported

if TYPE_CHECKING:
    from ..auxiliary.reconstruction import ReconstructionHead


@HOOKS.register_module()
class LocalLearningHook(ModelHook):
    """Trains a model with a local backbone block by block.

    Around each training forward of the model, it passes a :class:`manpp_mm.step.Step` with the batch's data samples to
    the backbone, takes it back and adds the block losses (``block0.loss_cls``, ...) to the model's own. One ordinary
    backward then trains everything.

    At the start of training, it copies the trunk into the branches of the auxiliary networks (unless they were loaded
    from a checkpoint). It checks that the heads' ``num_classes`` match the data set and that ``MomentumHook`` is
    present. Before the first optimizer step, it checks that every trainable parameter of the backbone received a
    gradient.

    Args:
        check_delivery: Whether to check the gradients. Set it to False if part of the backbone should receive no
            gradient.
        seed_blocks: Whether to seed the random numbers of each block (and of neck and heads, with the last one) from
            the run's seed, the iteration and the block. They then do not depend on how a training is split over
            processes.

    Example:
        >>> custom_hooks = [dict(type='LocalLearningHook'), dict(type='MomentumHook', momentum=0.995)]
    """

    local_only = True

    def __init__(self, check_delivery: bool = True, seed_blocks: bool = False) -> None:
        self.check_delivery = check_delivery
        self.seed_blocks = seed_blocks
        self._forward: _LocalForward | None = None

    def before_run(self, runner: Runner) -> None:
        """Undo the changes of an interrupted training; refuse unsupported setups.

        Raises:
            ValueError: See :func:`manpp_mm.hooks.unsupported.refuse_unsupported`.
        """
        super().before_run(runner)
        refuse_unsupported(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Warn about keys with which the checkpoint was trained differently, before loading auxiliary networks."""
        if not any('backbone.auxiliary.' in name for name in checkpoint.get('state_dict') or ()):
            return
        if changed := changed_keys(trained_config(checkpoint), runner.cfg):
            runner.logger.warning(
                'The auxiliary networks in the checkpoint were trained with another config: '
                f'{", ".join(changed)}. Restore these keys to continue as before.'
            )

    def before_train(self, runner: Runner) -> None:
        """Check the model and apply the hook.

        Raises:
            ValueError: The model has no local backbone, or has it in a place where it cannot be trained; a head's
                number of classes differs from the data set's; MomentumHook is missing.
        """
        model = unwrapped(runner.model)
        backbone = find_local_backbone(model)
        if backbone.momentum_pairs() and not any(isinstance(hook, MomentumHook) for hook in runner.hooks):
            raise ValueError(
                "the auxiliary networks have momentum branches that nothing updates: add dict(type='MomentumHook') to "
                'custom_hooks (a custom_hooks list of your own replaces an inherited one)'
            )
        check_num_classes(backbone, runner.train_dataloader.dataset)
        if len(backbone.auxiliary) and _sees_detached(getattr(model, 'auxiliary_head', None), backbone):
            runner.logger.warning(
                'model.auxiliary_head sees detached features of the local blocks: it only trains itself, not the '
                'backbone. Set auxiliary_head=None; the local losses replace it.'
            )
        runner.logger.info(block_table(backbone))
        if backbone.sync_auxiliary():
            runner.logger.info('The branches of the auxiliary networks were copied from the trunk.')
        super().before_train(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: 'dict | None' = None) -> None:
        """Choose the seed of the iteration."""
        if self.seed_blocks and self._forward is not None:
            self._forward.seed = (runner.seed, runner.iter)

    def remove(self, model: BaseModel) -> None:
        """Undo the changes of this hook."""
        super().remove(model)
        self._forward = None

    def changes(self, model: BaseModel, optim_wrapper: 'Optimizers | None') -> Iterator[Handle]:
        """Prepare a model and register hooks around its forward and its optimizer's step.

        Without ``optim_wrapper``, losses are not scaled and the arrival of gradients is not checked.

        Raises:
            ValueError: The model has no local backbone, or has it in a place where it cannot be trained.
        """
        backbone = find_local_backbone(model)
        wrapper = None if optim_wrapper is None else trunk_optim_wrapper(optim_wrapper, backbone)
        backbone.sync_auxiliary()
        preprocessor = model.data_preprocessor
        for network in backbone.auxiliary:
            if network.reconstruction is not None and hasattr(preprocessor, 'mean'):
                yield _Statistics(network.reconstruction, preprocessor.mean, preprocessor.std)
        backbone.forget_blocks()
        self._forward = forward = _LocalForward(model, backbone, getattr(wrapper, 'loss_scaler', None))
        yield forward
        yield model.register_forward_pre_hook(forward.begin, with_kwargs=True)
        yield model.register_forward_hook(forward.end, always_call=True)
        if wrapper is not None:
            yield wrapper.optimizer.register_step_pre_hook(_StandingStill(backbone))
            if self.check_delivery:
                yield wrapper.optimizer.register_step_pre_hook(_DeliveryCheck(backbone))


def check_num_classes(backbone: LocalBackbone, dataset: Any) -> None:
    """Compare the auxiliary heads' ``num_classes`` with the data set's classes.

    Raises:
        ValueError: They differ.
    """
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    for block, network in enumerate(backbone.auxiliary):
        for head in network.heads:
            number = getattr(head, 'num_classes', None)
            if classes is not None and number is not None and number != len(classes):
                raise ValueError(
                    f'model.backbone.auxiliary.head.num_classes={number} (block {block}), but the training data set '
                    f'has {len(classes)} classes: {", ".join(map(str, classes[:5]))}'
                    f'{", ..." if len(classes) > 5 else ""}. '
                    "Set it along with the model's own num_classes."
                )


def _sees_detached(heads: 'nn.Module | None', backbone: LocalBackbone) -> bool:
    """Return whether one of a segmentor's auxiliary heads sees only maps that come out of blocks before the last."""
    *blocks, last = [[u.output for u in block.units if u.output is not None] for block in backbone.blocks()]
    detached = [True for maps in blocks for _ in maps] + [False for _ in last]
    for head in heads if isinstance(heads, nn.ModuleList) else [heads] if heads is not None else []:
        index: Any = head.in_index
        places = index if isinstance(index, Sequence) else [index]
        if all(detached[place] for place in places):
            return True
    return False


class _LocalForward:
    """The model's forward hooks. They hold no runner, because models are copied and pickled."""

    def __init__(self, model: BaseModel, backbone: LocalBackbone, loss_scaler: 'torch.amp.GradScaler | None') -> None:
        self.backbone = backbone
        self.loss_scaler = loss_scaler
        self.seed: tuple[int, ...] | None = None
        self._generators = ExitStack()
        self.signature = inspect.signature(model.forward)
        self.device = next(model.parameters()).device

    def begin(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        call = self.signature.bind(*args, **kwargs).arguments
        self.remove()  # an aborted forward may have left its step
        if call.get('mode') == 'loss':
            if self.seed is not None:
                self._generators.enter_context(kept_generators())
            self.backbone.begin(Step(call.get('data_samples'), loss_scale(self.loss_scaler, self.device), self.seed))

    def end(self, model: nn.Module, args: tuple, output: Any) -> 'dict | None':
        step = self.backbone.step
        self.remove()
        if step is None or not isinstance(output, dict):
            return None
        if step.ran:
            return {**output, **step.delivered_losses()}
        zero = self.backbone.idle_delivery()
        return None if zero is None else _with_zero(output, zero)

    def remove(self) -> None:
        """Drop the step of a forward."""
        self.backbone.end()
        self._generators.close()


class _Statistics:
    """Passes the preprocessor's statistics to a reconstruction for the duration of a training."""

    def __init__(self, reconstruction: 'ReconstructionHead', mean: torch.Tensor, std: torch.Tensor) -> None:
        self.reconstruction = reconstruction
        reconstruction.set_statistics(mean, std)

    def remove(self) -> None:
        """Remove them; changing buffers would confuse EMAHook."""
        self.reconstruction.set_statistics(None, None)


def _with_zero(losses: dict, zero: torch.Tensor) -> dict:
    """Add a zero to the first term of a loss dict."""
    name = next(name for name in losses if 'loss' in name)
    first = losses[name]
    return losses | {name: first + zero if isinstance(first, torch.Tensor) else [first[0] + zero, *first[1:]]}


class _StandingStill:
    """Removes the gradients of idle auxiliary networks before a step with exact gradients. DDP sets them to zero.

    With zero gradients, weight decay and SGD's momentum would still change the networks.
    """

    def __init__(self, backbone: LocalBackbone) -> None:
        self.backbone = backbone

    def __call__(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        if self.backbone.exact:
            for parameter in self.backbone.auxiliary.parameters():
                parameter.grad = None


class _DeliveryCheck:
    """Checks before the first optimizer step with each kind of gradient that the backbone received its gradients."""

    def __init__(self, backbone: LocalBackbone) -> None:
        self.backbone = backbone
        self.done: set[str] = set()

    def __call__(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        gradient = self.backbone.gradient
        if gradient in self.done:
            return
        self.done.add(gradient)
        missing = [
            name
            for name, p in self.backbone.named_parameters()
            if p.requires_grad and p.grad is None and not (self.backbone.exact and name.startswith('auxiliary.'))
        ]
        if missing:
            raise RuntimeError(
                f'{len(missing)} trainable parameters of the backbone received no gradient before the first optimizer '
                f'step: {", ".join(missing[:5])}{", ..." if len(missing) > 5 else ""}. Either the local losses do not '
                "reach them, neck and heads do not use their stage's map (model.backbone.out_indices), or a wrapper "
                'around the model drops their gradients. If this is intended, set '
                "dict(type='LocalLearningHook', check_delivery=False) in custom_hooks."
            )
        print_log(f'The {gradient} gradients reach every trainable parameter of the backbone.', logger='current')
