"""Train the blocks of a model in several processes, each of which trains some of them.

manpp split-train configs/faster_rcnn_r50_manpp_coco.py 2
manpp split-train configs/faster_rcnn_r50_manpp_coco.py 2 --split 1,2
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from mmengine.config import Config

from ..checkpoint_file import check_load_from
from ..checks.files import check_crop
from ..cli import arguments, checking, errors
from ..cli import runner as running
from ..cli.launch import launch, launched, run_worker, temporary_folder
from ..split.division import balanced, block_work, divided, parse_split
from ..split.messages import Messenger, PeerLostError
from ..split.prepare import clips_by_one_norm, load_nothing, process_config, refuse_unsplittable
from ..split.split_hook import Settings, SplitHook
from ..split.timeline import draw_timeline, write_measurements

_PLAN = 'manpp/plan'
"""The key under which the last process stores what all processes must agree on."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_config_argument(parser)
    parser.add_argument('processes', type=int, help='number of processes on this machine')
    parser.add_argument(
        '--split',
        type=_split,
        metavar='BLOCKS',
        help='number of local blocks of each process: 3,5. By default, the work of the processes is balanced',
    )
    parser.add_argument(
        '--ahead', type=int, default=2, help='number of batches that wait at a process at most (default: 2)'
    )
    parser.add_argument(
        '--delay',
        type=int,
        help='number of steps by which momentum branches follow units of another process late; 0 waits for each step '
        '(default: as many as avoid waiting)',
    )
    parser.add_argument(
        '--measure',
        action='store_true',
        help='write split.json, with the bytes that each process holds and the times at which it works on each batch, '
        'and draw the times (split.png)',
    )
    arguments.add_training_arguments(parser)
    arguments.add_check_argument(parser)
    arguments.add_common_arguments(parser)
    args = parser.parse_args(argv)
    if args.processes < 1:
        parser.error(f'{args.processes} processes: at least 1')
    if args.ahead < 1:
        parser.error(f'--ahead {args.ahead}: at least 1')
    if args.delay is not None and args.delay < 0:
        parser.error(f'--delay {args.delay}: at least 0')
    return args


def _split(text: str) -> list[int]:
    try:
        return parse_split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from error


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if launched():
        run_worker(lambda store, number, size: train(args, store, number, size))
    else:
        launch(__name__, args.processes, sys.argv[1:] if argv is None else list(argv))


def train(args: argparse.Namespace, store: dist.Store, number: int, size: int) -> None:
    """Train this process's share; see :func:`manpp_mm.cli.launch.run_worker`."""
    if torch.cuda.is_available():
        if args.processes > torch.cuda.device_count():
            raise ValueError(
                f'{args.processes} processes need a GPU each, but this machine has {torch.cuda.device_count()}: start '
                'fewer, or set CUDA_VISIBLE_DEVICES= to train on CPUs'
            )
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']))
    config = arguments.load_config(args)
    refuse_unsplittable(config)
    arguments.apply_training_arguments(config, args)
    resumed = running.checkpoint_to_resume(config)
    last = size - 1
    warnings: list[str] = []
    words: list[str] = []
    if number == last:
        try:
            plan, words = _plan(config, args.split, size, resumed)
            if not args.no_check:
                warnings += checking.before_training(config, resumed)
                if resumed is not None:
                    warnings += checking.before_resuming(config, resumed)
            check_crop(config)
        except BaseException:
            store.set(_PLAN, 'null')
            raise
        store.set(_PLAN, json.dumps(plan))
    else:
        plan = json.loads(store.get(_PLAN))
        if plan is None:
            raise PeerLostError('the last process has ended')
        if plan['resumed'] is not None and plan['resumed'] != _identity(resumed):
            name, size_ = plan['resumed']
            raise ValueError(
                f'process {number} finds {resumed or "no checkpoint"}, but the last one resumes from {name} '
                f'({size_} bytes): copy it to this machine and name it with --resume'
            )
    if plan['resumed'] is None:
        config.resume = False
    else:
        config.load_from = resumed  # other processes have a work folder of their own
    config.randomness = dict(config.get('randomness') or {}, seed=plan['seed'])
    division = divided(plan['blocks'])
    used = None if plan['used'] is None else frozenset(plan['used'])
    runner = running.build_runner(process_config(config, number, last, temporary_folder()))
    if number > 0:
        load_nothing(runner)
    if number == last:
        if config.get('load_from') and resumed is None and '://' not in config.load_from and not args.no_check:
            check_load_from(runner.model, config.load_from)
        for line in words:
            runner.logger.info(line)
        if clips_by_one_norm(config):
            runner.logger.info('The gradients of each block are clipped by their own norm, not all by one norm.')
        for warning in warnings:
            runner.logger.warning(warning)
    messenger = Messenger(store, number, size, device())
    # A process is at most so many steps ahead of the next one: the waiting batches, one that is sent, one in work.
    delay = args.ahead + 2 if args.delay is None else args.delay
    hook = SplitHook(messenger, Settings(division, args.ahead, delay, used, args.measure))
    runner.register_hook(hook)
    running.train(runner)
    if number == last and args.measure:
        write_measurements(hook.spans, hook.held, Path(config.work_dir, 'split.json'))
        # The first batches warm up, and the third one is measured.
        first = min((span.iteration for span in hook.spans), default=0) + 3
        draw_timeline(hook.spans, Path(config.work_dir, 'split.png'), first)


def device() -> torch.device:
    """Return this process's device, with its index."""
    return torch.device('cuda', torch.cuda.current_device()) if torch.cuda.is_available() else torch.device('cpu')


def _identity(checkpoint: 'str | None') -> 'list | None':
    """Return name and size of a checkpoint, by which processes on several machines know that theirs are the same."""
    if checkpoint is None:
        return None
    return [os.path.basename(checkpoint), 0 if '://' in checkpoint else os.path.getsize(checkpoint)]


def _plan(
    config: Config, split: 'list[int] | None', processes: int, resumed: 'str | None'
) -> tuple[dict[str, Any], list[str]]:
    """Return what all processes must agree on, and lines for the log."""
    division, used, lines = _division(config, split, processes)
    seed = (config.get('randomness') or {}).get('seed')
    plan = dict(
        blocks=[len(part) for part in division],
        used=None if used is None else sorted(used),
        resumed=_identity(resumed),
        seed=int(np.random.default_rng().integers(2**31)) if seed is None else seed,
    )
    return plan, lines


def _division(
    config: Config, split: 'list[int] | None', processes: int
) -> 'tuple[list[range], frozenset[int] | None, list[str]]':
    """Return the blocks of each process, the stages whose maps reach the task's loss, and lines for the log."""
    used = None
    try:
        work, used = block_work(config)
    except Exception as error:
        # An operator without a CPU kernel, images without a fixed size: a division by hand needs no work.
        if split is None:
            raise ValueError(
                f'the work of the blocks cannot be counted ({error}): divide them by hand with --split, such as '
                f'--split {",".join(["1"] * processes)}'
            ) from error
        work = []
    number = len(work) or sum(split or [])
    if number < processes:
        raise ValueError(
            f'{processes} processes need {processes} local blocks, but the backbone has {number}: set '
            f'model.backbone.cuts, or --cfg-options model.backbone.cuts=None model.backbone.local_blocks={processes}'
        )
    if split is not None and (len(split) != processes or sum(split) != number):
        raise ValueError(
            f'--split {",".join(map(str, split))} must divide {number} local blocks among {processes} processes'
        )
    division = balanced(work, processes) if split is None else divided(split)
    lines = []
    for process, part in enumerate(division):
        blocks = f'blocks {part.start} to {part.stop - 1}' if len(part) > 1 else f'block {part.start}'
        heads = ', neck and heads' if process == processes - 1 else ''
        share = f': {sum(work[part.start : part.stop]) / sum(work):.0%} of the work' if work else ''
        lines.append(f'process {process} trains {blocks}{heads}{share}')
    return division, used, lines


if __name__ == '__main__':
    errors.run(main)
