"""Show the memory that each way to train a config needs, and write the config that fits.

manpp fit mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py --memory 4GiB --write faster_rcnn_4GiB.py
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger

from .. import fit
from ..backbones import mode_of
from ..checks.config_keys import merge_options
from ..cli import arguments, errors
from ..compat.config_prefix import read_config
from ..memory.fit import PLAN, below_the_floor, budget_of, candidates, needs_plan
from ..memory.footprint import padded
from ..memory.inputs import fixed_bytes, in_mixed_precision
from ..memory.predict import methods_for
from ..memory.report import gib, ways_table
from ..memory.training_step import TrainingStep


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_config_argument(parser)
    arguments.add_fitting_arguments(parser)
    parser.add_argument(
        '--input', nargs=3, type=int, metavar=('N', 'H', 'W'), help="images, height, width (default: the config's)"
    )
    parser.add_argument(
        '--batch-size', choices=['auto'], help='write or measure with the largest batch that any way fits'
    )
    parser.add_argument('--amp', action='store_true', help='predict for mixed precision')
    parser.add_argument('--keep-cuts', action='store_true', help='do not plan; use the cuts of the block-local config')
    parser.add_argument(
        '--measure', action='store_true', help='run a real step of the config that fits, on the GPU if there is one'
    )
    parser.add_argument('--write', metavar='FILE', help='write the config that fits to this Python file')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override config keys: key=value ...')
    errors.add_traceback_argument(parser)
    args = parser.parse_args(argv)
    if args.keep_cuts and (args.write or args.measure):
        parser.error('--keep-cuts makes no plan, so omit --write and --measure')
    if args.batch_size and not (args.memory and (args.write or args.measure)):
        parser.error(
            '--batch-size auto needs --memory, and --write or --measure; the table lists the batch of each way'
        )
    if args.input and min(args.input) < 1:
        parser.error('--input must be positive')
    if args.write and not args.write.endswith('.py'):
        parser.error(f'--write {args.write}: the file name must end in .py')
    if args.write and not Path(args.write).absolute().parent.is_dir():
        parser.error(f'--write {args.write}: the folder {Path(args.write).parent} does not exist')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    MMLogger.get_instance('mmengine', log_level='WARNING')
    warnings.simplefilter('ignore')  # from the models, which are only probed here
    config = read_config(args.config)
    merge_options(config, args.cfg_options)
    if args.amp:
        arguments.enable_amp(config)
    if (args.write or args.measure) and not (args.memory or args.method or needs_plan(config)):
        raise ValueError('--write and --measure need --memory or --method, to know which config fits')
    if not (args.write or args.measure):
        show(config, args)
        return
    fitted = fit(config, args.memory, args.method, args.input, args.batch_size)
    print('\n'.join(fitted[PLAN].report))
    if args.measure:
        print(measured(fitted))
    if args.write:
        fitted.dump(args.write)
        print(f'written to {args.write}')


def measured(config: Config) -> str:
    """Return a line that compares the memory of a real step with the prediction."""
    batch, *size = config[PLAN].input
    size = padded(config, tuple(size))
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    half = torch.float16 if device == 'cuda' else torch.bfloat16
    amp = half if in_mixed_precision(config) else None
    fixed = fixed_bytes(config)
    before = fixed.before(batch, size)
    step = TrainingStep(config, mode_of(config), batch, size, device, amp=amp, full_regions=True)
    if device == 'cuda':
        step.run()  # the allocator and cuDNN warm up
    live = before + max(step.peak_bytes(), fixed.stepping)
    words = f'measured: {gib(live)} of live tensors'
    allocated = step.allocated_bytes()
    if allocated is not None:
        words += f', {gib(before + max(allocated, fixed.stepping))} allocated on {torch.cuda.get_device_name()}'
    return f'{words}; predicted {config[PLAN].predicted_bytes / live:.3f} of the former'


def show(config: Config, args: argparse.Namespace) -> None:
    """Print the memory that each way needs."""
    memory = budget_of(config, args.memory)
    print('planning on the CPU, which takes up to a few minutes', file=sys.stderr, flush=True)
    predictor, found = candidates(config, memory, args.method, args.input, every=True, keep_cuts=args.keep_cuts)
    batch, room, measured = predictor.batch, predictor.room, predictor.survey.measured
    height, width = padded(config, predictor.size)
    print(
        f'{args.config}, {batch} images of {height}x{width}, {"mixed precision" if predictor.survey.amp else "float32"}'
    )
    if measured:
        print(f'measured with real steps: {measured}')
    if room is not None:
        print(f'{gib(room)} for everything, after a tenth of the budget as headroom')
    print(f'\n{ways_table(found, room, predictor.size, batches=not measured)}')
    for fault in predictor.faults:
        print(f'not possible: {fault}')
    print('total: includes parameters, optimizer state and images; ratio: of peaks; work: floating-point operations')
    asked = [each for each in found if each.way.method in methods_for(config, args.method)]
    if asked and memory is not None and room is not None and all(each.total_bytes > room for each in asked):
        print(below_the_floor(predictor, asked, memory))
