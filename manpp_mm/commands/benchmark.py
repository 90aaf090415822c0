"""Measure memory, work, operators and time of one forward and backward pass, end-to-end and block-local.

manpp benchmark configs/faster_rcnn_r50_manpp_coco.py --input 2 800 1333 --json result.json --plot result.png
"""

import argparse
import json
import platform
import sys
from collections.abc import Sequence

import torch
from mmengine.config import DictAction
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.utils import ProgressBar

from ..checks.config_keys import merge_options
from ..cli import errors
from ..compat.config_prefix import read_config
from ..memory import Measurement, TrainingStep, measure, peak_table, plot_modes, plot_sweep, table, variants
from ..mode import MODES, OFFLOADED, USUAL


def blocks(value: str) -> 'int | str':
    return value if value == 'auto' else int(value)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a block-local model')
    parser.add_argument(
        '--input', nargs=3, type=int, metavar=('N', 'H', 'W'), default=(2, 800, 1333), help='images, height, width'
    )
    parser.add_argument(
        '--modes', nargs='+', choices=[*map(str, MODES)], metavar='MODE', default=[*map(str, USUAL)],
        help=f'any of {", ".join(map(str, MODES))}; ratios are relative to the first'
    )  # fmt: skip
    parser.add_argument('--repeats', type=int, default=3, help='timed steps per mode; 0 measures memory only')
    parser.add_argument('--seed', type=int, default=0, help='seed for weights, images and targets')
    parser.add_argument('--amp', choices=['float16', 'bfloat16'], help='mixed precision (needs a GPU)')
    parser.add_argument('--peak', type=int, metavar='NUMBER', help='list the NUMBER largest tensors at each peak')
    parser.add_argument('--depths', nargs='+', type=int, help='sweep over depths of the backbone')
    parser.add_argument('--blocks', nargs='+', type=blocks, help="sweep over local_blocks, numbers or 'auto'")
    parser.add_argument('--batch-sizes', nargs='+', type=int, metavar='N', help='sweep over images per step')
    parser.add_argument('--json', help='write the results to this JSON file')
    parser.add_argument('--plot', metavar='PNG', help='plot the results to this file')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override config keys: key=value ...')
    errors.add_traceback_argument(parser)
    args = parser.parse_args(argv)
    if args.repeats < 0 or min(*args.input, *(args.batch_sizes or [1])) < 1:
        parser.error('--repeats must be 0 or more, --input and --batch-sizes positive')
    if not torch.cuda.is_available() and (args.amp or str(OFFLOADED) in args.modes):
        parser.error(f'--amp and {OFFLOADED} need a GPU')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    config = read_config(args.config)
    merge_options(config, args.cfg_options)
    MMLogger.get_instance('mmengine', log_level='WARNING')
    init_default_scope(config.get('default_scope', 'mmengine'))
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    amp = getattr(torch, args.amp) if args.amp else None
    batch, *size = args.input
    rows = []
    for name, varied, images in variants(config, batch, tuple(size), args.depths, args.blocks, args.batch_sizes):
        bar = ProgressBar(len(args.modes) * (1 + args.repeats), file=sys.stderr)
        found = measure(varied, args.modes, images, tuple(size), args.repeats, device, args.seed, amp, bar.update)
        print(f'\n{name}\n{table(found)}', flush=True)
        for mode in args.modes if args.peak else ():
            step = TrainingStep(varied, mode, images, tuple(size), device, args.seed, amp)
            print(f'\nalive at the peak of {mode}\n{peak_table(step.held_at_peak(args.peak))}', flush=True)
        rows.append((name, images, found))
    name = torch.cuda.get_device_name() if device == 'cuda' else platform.processor() or platform.machine()
    swept = len(rows) > 1
    if args.json:
        figures = dict(config=args.config, device=name, torch=torch.__version__, amp=args.amp, seed=args.seed)
        with open(args.json, 'w') as file:
            if swept:
                sweep = [dict(variant=n, **as_json(images, size, found)) for n, images, found in rows]
                json.dump(figures | dict(sweep=sweep), file, indent=2)
            else:
                json.dump(figures | as_json(rows[0][1], size, rows[0][2]), file, indent=2)
    if args.plot and swept:
        plot_sweep([(n, found) for n, _, found in rows], f'{args.config}, {name}', args.plot)
    elif args.plot:
        title = f'{args.config}\n{batch} images of {size[0]}x{size[1]}, {args.amp or "float32"}, {name}'
        plot_modes(rows[0][2], title, args.plot)


def as_json(images: int, size: list[int], found: dict[str, Measurement]) -> dict:
    return dict(input=[images, *size], modes={mode: result.as_dict() for mode, result in found.items()})
