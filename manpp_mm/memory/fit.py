"""Fitting of any config to a memory budget."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict

from ..backbones import local_class, mode_of
from ..backbones.config import check_backbone
from ..checkpoint_file import read_checkpoint, trained_config
from ..compat.config_prefix import read_config
from ..methods import FAMILY, POOLED, Way, apply_way, check_method, method_of, twin_of, without_twin
from .budget import RESERVE, budget_bytes, room_in
from .footprint import footprint, padded
from .inputs import Size, fixed_bytes, in_mixed_precision, training_input
from .predict import Prediction, Predictor, in_half, methods_for
from .report import at_least, gib

PLAN = 'manpp_plan'
"""The config key that stores how a config was fitted."""


def fit(
    config: 'Config | str | Path',
    memory: 'str | int | None' = None,
    method: str | None = None,
    inputs: 'tuple[int, int, int] | None' = None,
    batch_size: str | None = None,
) -> Config:
    """Make a config train within a memory budget, with a given method, or both.

    Without ``method``, the result is the way with the least work that fits and keeps end-to-end gradients; a local
    config keeps its method. With ``method``, it is that method's way with the least work that fits. Without
    ``memory``, the cuts are those with about the lowest need. A config with ``local_blocks='auto'`` can set the budget
    itself, as ``memory_budget``.

    Args:
        config: A config or its name, such as ``'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'``; not modified.
        memory: Budget for everything on the device, such as ``'8GiB'``, of which a tenth is left as headroom;
            ``'auto'`` for the free memory of the GPU.
        method: One of :data:`manpp_mm.methods.METHODS`.
        inputs: Images per step, their height and width in pixels; by default those of the config's training loader.
        batch_size: ``'auto'`` sets the training loader's batch size to the largest that fits any of these ways.

    Returns:
        The fitted config; its ``manpp_plan`` stores how it was fitted.

    Raises:
        ValueError: Neither memory nor method is given; the method is unknown, or a local config trains with another;
            ``memory`` is not a size or is below the floor; ``local_blocks='auto'`` is combined with cuts; the image
            size is unknown; or ``batch_size='auto'`` is set without a budget or cannot be predicted.

    Example:
        >>> config = fit('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', memory='4GiB')
        >>> config.dump('retinanet_4GiB.py')
    """
    config = config if isinstance(config, Config) else read_config(config)
    memory = budget_of(config, memory)
    if memory is None and method is None and not needs_plan(config):
        raise ValueError('fit() needs memory, method, or both')
    if batch_size not in (None, 'auto') or (batch_size and memory is None):
        raise ValueError(f"batch_size={batch_size!r}: use 'auto' with memory to find the largest, or omit it")
    predictor, found = candidates(config, memory, method, inputs)
    batch, size = predictor.batch, predictor.size
    if batch_size:
        if predictor.survey.measured:
            raise ValueError(f"batch_size='auto' cannot be predicted for this model: {predictor.survey.measured}")
        assert predictor.room is not None  # there is a budget, see above
        largest = max(each.largest_batch(predictor.room, predictor.size) for each in found)
        for batch in range(largest, 0, -1):  # the step of a plan may need slightly more than predicted
            predictor = Predictor(config, batch, size, predictor.room, predictor.survey)
            found = _ways(predictor, method)
            if _chosen(found, predictor.room) is not None:
                break
    chosen = _chosen(found, predictor.room)
    if chosen is None:
        assert memory is not None  # without a budget, every way fits
        raise ValueError(below_the_floor(predictor, found, memory))
    fitted = _applied(config, chosen.way, memory)
    if inputs or batch_size:
        fitted.train_dataloader.batch_size = batch
    fitted[PLAN] = ConfigDict(
        **chosen.way.as_dict(),
        memory=memory,
        input=[batch, *size],
        mixed_precision=predictor.survey.amp,
        measured=predictor.survey.measured,
        predicted_bytes=chosen.total_bytes,
        report=_report(predictor, found, chosen, memory),
    )
    return fitted


def candidates(
    config: Config,
    memory: 'str | int | None' = None,
    method: str | None = None,
    inputs: 'tuple[int, int, int] | None' = None,
    every: bool = False,
    keep_cuts: bool = False,
) -> tuple[Predictor, list[Prediction]]:
    """Return the ways from which :func:`fit` chooses, and their predictor.

    Args:
        config, memory, method, inputs: As for :func:`fit`.
        every: Whether to list block-local training in addition to the ways with end-to-end gradients.
        keep_cuts: Whether to use the cuts of a block-local config instead of planning them.

    Raises:
        ValueError: As for :func:`fit`; or ``keep_cuts`` is set and the config has no cuts.
    """
    check_request(config, method)
    if keep_cuts and local_class(config) is None:
        raise ValueError('--keep-cuts: the config has no cuts, its backbone is not a local one')
    room = room_in(budget_bytes(memory))
    batch, size = (inputs[0], (inputs[1], inputs[2])) if inputs else training_input(config)
    predictor = Predictor(config, batch, size, room)
    if keep_cuts:
        return predictor, predictor.predictions(methods_for(config, method, every), keep_cuts=True)
    return predictor, _ways(predictor, method, every)


def _ways(predictor: Predictor, method: str | None, every: bool = False) -> list[Prediction]:
    config = predictor.config
    found = predictor.predictions(methods_for(config, method, every))
    could_pool = local_class(config) is None and found[0].way.mode.local
    if method is not None and could_pool and _chosen(found, predictor.room) is None:
        found += predictor.predictions((method,), stride=POOLED)
    return found


def _applied(config: Config, way: Way, memory: 'str | int | None') -> Config:
    fitted = apply_way(config, way)
    if memory is not None and (fitted.get('env_cfg') or {}).get('cudnn_benchmark'):
        fitted.env_cfg.cudnn_benchmark = False  # its search allocates workspaces of many GB
    return fitted


def budget_of(config: Config, memory: 'str | int | None') -> 'str | int | None':
    """Return the requested memory, or else the ``memory_budget`` of a config with ``local_blocks='auto'``."""
    return config.model.backbone.get('memory_budget') if memory is None and needs_plan(config) else memory


def check_request(config: Config, method: str | None) -> None:
    """Check that a config can train with a method.

    Raises:
        ValueError: The method is unknown, the config already trains with another local or exact method, or there is no
            local backbone for it; the config's own backbone is unknown; or it sets both cuts and planned cuts.
    """
    check_backbone(config)
    if needs_plan(config) and config.model.backbone.get('cuts') is not None:
        raise ValueError("local_blocks='auto' plans the cuts: set model.backbone.cuts=None")
    if method is None:
        return
    check_method(method)
    own = method_of(config)
    if local_class(config) is not None and own != method:
        keys = FAMILY.get(method)
        if keys is None or own == 'exact':
            way_out = 'use the config with the plain backbone'
        else:
            way_out = 'set ' + ' and '.join(f'model.backbone.auxiliary.{key}={value!r}' for key, value in keys.items())
        raise ValueError(
            f'--method {method}: model.backbone.type={config.model.backbone.type!r} already trains with the '
            f'method {own!r}. Omit --method, or {way_out}'
        )
    if method not in ('end_to_end', 'checkpointed') and twin_of(config) is None:
        raise ValueError(
            f'--method {method}: {without_twin(config)}. Omit --method: --memory alone checkpoints the parts of the '
            'backbone, neck and heads as needed'
        )


def needs_plan(config: Config) -> bool:
    """Return whether the cuts of a config are to be planned: ``local_blocks='auto'``."""
    return (config.model.get('backbone') or {}).get('local_blocks') == 'auto'


def plan_of(checkpoint: str) -> ConfigDict | None:
    """Return the plan in a checkpoint's config, or None."""
    return trained_config(read_checkpoint(checkpoint)).get(PLAN)


def apply_plan(config: Config, plan: Mapping) -> Config:
    """Return a config fitted according to a plan.

    Args:
        config: The config that the plan was made for; not modified.
        plan: The content of ``manpp_plan``.
    """
    fitted = _applied(config, _way_of(config, plan), plan.get('memory'))
    fitted[PLAN] = plan
    return fitted


def _way_of(config: Config, plan: Mapping) -> Way:
    if 'mode' in plan:
        return Way.from_dict(plan)
    # A plan of an earlier release.
    return Way(method_of(config), mode_of(config), tuple(tuple(cut) for cut in plan['cuts']))


def report_of(plan: Mapping) -> list[str]:
    """Return the report of a plan, for the log."""
    return list(plan.get('report') or plan.get('table') or [])


def keep_plan(config: Config, checkpoint: str, memory: 'str | int | None' = None, method: str | None = None) -> Config:
    """Return a config with the plan of the training that wrote a checkpoint.

    Args:
        config: The config to resume or test with the checkpoint; not modified.
        checkpoint: The checkpoint file.
        memory, method: What the user requests now.

    Returns:
        The config itself if it already sets how it trains, otherwise a copy with the checkpoint's plan.

    Raises:
        ValueError: The checkpoint has no plan but one is needed, or the config or the user requests something else.
    """
    plan = plan_of(checkpoint)
    as_it_began = 'and a resumed run continues as it began'
    own = PLAN in config or (local_class(config) is not None and not needs_plan(config))
    if plan is None:
        if needs_plan(config):
            raise ValueError(
                f"{checkpoint} was not trained with model.backbone.local_blocks='auto': copy the cuts from its own "
                'config'
            )
        if memory is None and (method is None or (own and method == method_of(config))):
            return config
        raise ValueError(
            f'{checkpoint} was trained without --memory and --method, {as_it_began}: omit them, or start a new '
            'training without --resume'
        )
    way = _way_of(config, plan)
    began = f'{checkpoint} was trained with the method {way.method!r}, {as_it_began}'
    if method not in (None, way.method):
        raise ValueError(f'--method {method}: {began}: omit --method, or start a new training without --resume')
    if own and method_of(config) != way.method:
        raise ValueError(
            f'the config: {began}, but the config trains with {method_of(config)!r}: use the one in its work folder'
        )
    fitted = config if own else apply_plan(config, plan)
    if memory is not None:
        room, needed = room_in(budget_bytes(memory)), _needed(fitted, plan)
        if room is not None and needed > room:
            raise ValueError(
                f'--memory {memory}: with the plan of {checkpoint}, a step needs {gib(needed)}, and {RESERVE:.0%} is '
                f'left as headroom: give at least {at_least(needed / (1 - RESERVE))}, or start a new training without '
                '--resume'
            )
    return fitted


def _needed(fitted: Config, plan: Mapping) -> int:
    """Return the bytes that a step of a fitted config needs with its current batch and precision."""
    if plan.get('measured'):
        return plan['predicted_bytes']
    return sum(_predicted(fitted, *_padded_input(fitted)))


def _padded_input(config: Config) -> tuple[int, Size]:
    batch, size = training_input(config)
    return batch, padded(config, size)


def _predicted(config: Config, batch: int, size: Size) -> tuple[int, int]:
    """Return the bytes before a step on images of a padded size, and the additional peak including the optimizer."""
    mode = mode_of(config)
    fixed = fixed_bytes(config, mode.local)
    peak = footprint(config, mode, in_mixed_precision(config)).peak_at(batch, size)
    return fixed.before(batch, size), max(peak, fixed.stepping)


def predicted_peak(config: Config) -> str:
    """Describe in one sentence the memory of a training step of a config with cuts.

    Raises:
        ValueError: The training pipeline sets no image size, or see :class:`Footprint`.
    """
    batch, size = _padded_input(config)
    before, peak = _predicted(config, batch, size)
    precision = 'mixed precision' if in_mixed_precision(config) else 'float32'
    return (
        f'A step on {batch} images of {size[0]}x{size[1]} in {precision} is predicted '
        f'to peak at {gib(peak)} beside {gib(before)} of parameters, optimizer state and images'
    )


def _chosen(found: Sequence[Prediction], room: int | None) -> Prediction | None:
    if room is None:
        return found[0]
    return min((each for each in found if each.total_bytes <= room), key=lambda each: each.work, default=None)


def _report(predictor: Predictor, found: Sequence[Prediction], chosen: Prediction, memory: 'str | int | None') -> list:
    """Return log lines: the chosen way, the reason, its predicted memory and that of the others."""
    batch, size = predictor.batch, padded(predictor.config, predictor.size)
    precision = 'mixed precision' if predictor.survey.amp else 'float32'
    words = f'{batch} image{"s" if batch > 1 else ""} of {size[0]}x{size[1]} in {precision}'
    which = f'of the method {chosen.way.method} that fit'
    if len({each.way.method for each in found}) > 1:
        which = 'that fit and keep end-to-end gradients'
    size_words = gib(memory) if isinstance(memory, int) else memory
    lines = [f'Fitted to {size_words}: {chosen.way}, the least work of the ways {which}'
             if memory is not None else f'Fitted: {chosen.way}']  # fmt: skip
    parts = [f'cuts={[tuple(cut) for cut in chosen.way.cuts]}' if chosen.way.cuts else '']
    parts += [
        'each unit of the backbone checkpointed' if chosen.way.mode.units_checkpointed and predictor.family else ''
    ]
    parts += [f'early loss: {", ".join(chosen.way.early)}' if chosen.way.early else '']
    parts += [f'checkpointed: {", ".join(chosen.way.modules)}' if chosen.way.modules else '']
    lines.append('; '.join(filter(None, parts)) or 'no changes')
    source = f'measured ({predictor.survey.measured})' if predictor.survey.measured else 'predicted'
    lines.append(
        f'{words}: {gib(chosen.total_bytes)} {source}, {gib(chosen.static_bytes)} of them before the step; '
        f'{chosen.work:.2f} of the work of end-to-end training'
    )
    others = [each for each in found if each is not chosen]
    if others:
        lines.append('Others: ' + ', '.join(f'{each.way} {gib(each.total_bytes)}' for each in others))
    lines += [f'Not possible: {fault}' for fault in predictor.faults]
    kind = (predictor.config.model.get('backbone') or {}).get('type')
    if not predictor.survey.trains:
        lines.append('The backbone is frozen: only neck and heads can be checkpointed')
    elif predictor.family is None and not predictor.survey.faults:
        lines.append(f'There is no local backbone for {kind!r}: it is not cut, but its parts can be checkpointed')
    return lines


def below_the_floor(predictor: Predictor, found: Sequence[Prediction], memory: 'str | int') -> str:
    """Return the message if no way fits: the floor, and what would fit."""
    lowest = min(found, key=lambda each: each.total_bytes)
    room, batch, size = predictor.room, predictor.batch, predictor.size
    assert room is not None
    out = []
    if not predictor.survey.measured:
        fewer = lowest.largest_batch(room, size)
        if fewer:
            out.append(f'train_dataloader.batch_size={fewer} ({gib(lowest.needs(fewer, size))})')
        for percent in range(95, 20, -5):
            smaller = round(size[0] * percent / 100), round(size[1] * percent / 100)
            if lowest.needs(batch, smaller) <= room:
                out.append(f'images of {smaller[0]}x{smaller[1]} ({gib(lowest.needs(batch, smaller))})')
                break
    if not predictor.survey.amp:
        total = _in_mixed_precision(predictor, lowest)
        if total is not None and total <= room:
            out.append(f'--amp ({gib(total)})')
    return (
        f'memory {memory} is below the floor: give at least {at_least(lowest.total_bytes / (1 - RESERVE))}. '
        f'{batch} image{"s" if batch > 1 else ""} of {size[0]}x{size[1]} need {gib(lowest.total_bytes)} with '
        f'{lowest.way}, {gib(lowest.static_bytes)} of them before the step, and {RESERVE:.0%} of the budget is left as '
        'headroom. '
        + (f'Or use {"; or ".join(out)}' if out else 'A smaller batch, smaller images or --amp would not suffice')
        + ''.join(f'. Not possible: {fault}' for fault in predictor.faults)
    )


def _in_mixed_precision(predictor: Predictor, lowest: Prediction) -> int | None:
    """Return the total bytes of the same way in mixed precision, None if a CPU cannot predict them."""
    mixed = apply_way(in_half(predictor.config), lowest.way)
    try:
        step = footprint(mixed, mode_of(mixed), amp=True, probe=predictor.survey.probe)
    except Exception:  # an operator without a kernel for bfloat16
        return None
    peak = step.peak_at(predictor.batch, padded(mixed, predictor.size))
    return lowest.static_bytes + max(peak, fixed_bytes(mixed).stepping)
