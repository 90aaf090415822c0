"""The hook that hands the batch's targets to a local backbone and adds its losses to the model's."""

import inspect
from typing import Any
from weakref import WeakKeyDictionary

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from ..models.local_backbone import LocalBackbone, find_local_backbone, unwrapped
from ..models.summary import block_table
from .changed_keys import changed_keys, trained_config
from .momentum_hook import MomentumHook
from .trunk_optimizer import loss_scale, trunk_optim_wrapper
from .unsupported import refuse_unsupported

_attached: 'WeakKeyDictionary[nn.Module, list]' = WeakKeyDictionary()
"""Handles of what is registered on a model, so that a training that ended in an exception leaves nothing behind."""


@HOOKS.register_module()
class LocalLearningHook(Hook):
    """Trains a model with a local backbone block by block.

    Around each training forward of the model it hands the batch's data samples to the backbone and adds the block
    losses (``block0.loss_cls``, ...) to the model's own. One ordinary backward then trains everything.

    At the start of training it copies the trunk into the auxiliary networks' branches (unless a checkpoint brought
    theirs), checks that the heads' ``num_classes`` fit the data set and that ``MomentumHook`` is there. Before the
    first optimizer step it checks that every trainable parameter of the backbone received a gradient.

    Args:
        check_delivery: Whether to make that last check. Switch it off where a part of the backbone is meant to
            receive no gradient.

    Example:
        >>> custom_hooks = [dict(type='LocalLearningHook'), dict(type='MomentumHook', momentum=0.995)]
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self, check_delivery: bool = True) -> None:
        self.check_delivery = check_delivery

    def before_run(self, runner: Runner) -> None:
        """Drop what an interrupted training left, before EMAHook copies it; refuse what is not supported.

        Raises:
            ValueError: See :func:`manpp_mm.hooks.unsupported.refuse_unsupported`.
        """
        detach(unwrapped(runner.model))
        refuse_unsupported(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Name what the checkpoint was trained with otherwise, before its auxiliary networks are loaded."""
        if not any('backbone.auxiliary.' in name for name in checkpoint.get('state_dict') or ()):
            return
        if changed := changed_keys(trained_config(checkpoint), runner.cfg):
            runner.logger.warning(
                'The auxiliary networks in the checkpoint were trained with another config: '
                f'{", ".join(changed)}. Set these keys back to go on as before.'
            )

    def before_train(self, runner: Runner) -> None:
        """Prepare the model and register the forward hooks.

        Raises:
            ValueError: The model has no local backbone or holds it where it cannot be trained; a head's number of
                classes differs from the data set's; MomentumHook is missing.
        """
        model = unwrapped(runner.model)
        backbone = find_local_backbone(model)
        if backbone.momentum_pairs() and not any(isinstance(hook, MomentumHook) for hook in runner.hooks):
            raise ValueError(
                "the auxiliary networks have momentum branches that nothing updates: add dict(type='MomentumHook') to "
                'custom_hooks (a custom_hooks list of your own replaces an inherited one)'
            )
        check_num_classes(backbone, runner.train_dataloader.dataset)
        if len(backbone.auxiliary) and getattr(model, 'auxiliary_head', None) is not None:
            runner.logger.warning(
                'model.auxiliary_head sees detached features of the local blocks: it trains itself and nothing of the '
                'backbone. Set auxiliary_head=None; the local losses take its place.'
            )
        runner.logger.info(block_table(backbone))
        if backbone.sync_auxiliary():
            runner.logger.info('The branches of the auxiliary networks were copied from the trunk.')
        optim_wrapper = trunk_optim_wrapper(runner.optim_wrapper, backbone)
        attach(model, getattr(optim_wrapper, 'loss_scaler', None))
        if self.check_delivery:
            _attached[model].append(optim_wrapper.optimizer.register_step_pre_hook(_DeliveryCheck(backbone)))

    def after_train(self, runner: Runner) -> None:
        """Remove the forward hooks."""
        detach(unwrapped(runner.model))


def attach(model: nn.Module, loss_scaler: 'torch.amp.GradScaler | None' = None) -> None:
    """Register the forward hooks on a model; ones that an interrupted training left are removed first.

    Args:
        model: A detector or segmentor, unwrapped, with a local backbone.
        loss_scaler: The scaler of float16 training, whose factor keeps local gradients from underflowing.
    """
    detach(model)
    forward = _LocalForward(find_local_backbone(model), loss_scaler)
    _attached[model] = [
        model.register_forward_pre_hook(forward.begin, with_kwargs=True),
        model.register_forward_hook(forward.end, always_call=True),
    ]


def detach(model: nn.Module) -> None:
    """Remove what a training registered on the model, an interrupted one included, and what its forward kept."""
    for handle in _attached.pop(model, []):
        handle.remove()
    for module in model.modules():
        if isinstance(module, LocalBackbone):
            module.drop_step()


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
                    "Set it beside the model's own num_classes."
                )


class _LocalForward:
    """The model's forward hooks. Holds no runner: models are copied and pickled."""

    def __init__(self, backbone: LocalBackbone, loss_scaler: 'torch.amp.GradScaler | None') -> None:
        self.backbone = backbone
        self.loss_scaler = loss_scaler
        self.opened = False

    def begin(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        call = inspect.signature(model.forward).bind(*args, **kwargs).arguments
        self.opened = call.get('mode') == 'loss'
        targets = call.get('data_samples') if self.opened else None
        scale = loss_scale(self.loss_scaler, next(model.parameters()).device)
        preprocessor = model.data_preprocessor
        statistics = (preprocessor.mean, preprocessor.std) if hasattr(preprocessor, 'mean') else None
        self.backbone.begin_local_step(targets, scale, statistics)

    def end(self, model: nn.Module, args: tuple, output: Any) -> 'dict | None':
        opened, ran = self.opened, self.backbone.local_step_ran
        self.opened = False
        losses = self.backbone.end_local_step()
        if not (opened and isinstance(output, dict)):
            return None
        if ran:
            return {**output, **losses}
        zero = self.backbone.idle_delivery()
        return None if zero is None else _with_zero(output, zero)


def _with_zero(losses: dict, zero: torch.Tensor) -> dict:
    """Add a zero to the first term of a loss dict."""
    name = next(name for name in losses if 'loss' in name)
    first = losses[name]
    return losses | {name: first + zero if isinstance(first, torch.Tensor) else [first[0] + zero, *first[1:]]}


class _DeliveryCheck:
    """Before the first optimizer step of each kind of gradient: did the backbone's gradients arrive?"""

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
            if p.requires_grad and p.grad is None and not (gradient == 'exact' and name.startswith('auxiliary.'))
        ]
        if missing:
            raise RuntimeError(
                f'{len(missing)} trainable parameters of the backbone received no gradient before the first optimizer '
                f'step: {", ".join(missing[:5])}{", ..." if len(missing) > 5 else ""}. Either the local losses do not '
                'reach them or a wrapper around the model drops their gradients. If that is meant, set '
                "dict(type='LocalLearningHook', check_delivery=False) in custom_hooks."
            )
        print_log(f'The {gradient} gradients reach every trainable parameter of the backbone.', logger='current')
