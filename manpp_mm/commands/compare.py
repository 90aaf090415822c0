"""Train variants of a block-local config under equal conditions; write a table, curves and a JSON file per run.

manpp compare configs/demo_deeplabv3_r18_manpp.py --variants end_to_end frozen manpp dgl --seeds 0 1 2 \
    --out results --work-dir work_dirs/compare
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import DictAction

from ..cli import errors
from ..comparison import KINDS, Cell, curves_plot, parse_variant, results_table, run_grid
from ..mode import END_TO_END, FROZEN


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a block-local model')
    parser.add_argument(
        '--variants', nargs='+', default=[str(END_TO_END), str(FROZEN), 'dgl', 'man', 'manpp'],
        help=f'{", ".join(KINDS)}. Local ones take _k4 for four blocks, _exact_start or _exact_end for a stretch of '
        'exact gradients. All take +KEY=VALUE to set a config key, and a prefix LABEL: as name in tables and files',
    )  # fmt: skip
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--out', required=True, help='folder for the JSON files, table.md and curves.png')
    parser.add_argument('--work-dir', required=True, help='folder for logs and checkpoints')
    parser.add_argument('--stretch', type=float, default=0.25, help='fraction of the schedule with exact gradients')
    parser.add_argument('--metric', help='validation metric (default: box AP, mIoU or top-1 accuracy)')
    parser.add_argument('--jobs', type=int, default=1, help='number of runs at a time')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='config keys to override: key=value ...')
    errors.add_traceback_argument(parser)
    args = parser.parse_args(argv)
    if not 0 < args.stretch < 1 or args.jobs < 1:
        parser.error('--stretch must lie between 0 and 1, --jobs must be 1 or more')
    if len(set(args.seeds)) < len(args.seeds) or len(set(args.variants)) < len(args.variants):
        parser.error('--seeds and --variants must not contain duplicates')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    variants = [parse_variant(name) for name in args.variants]
    results, failed = run_grid(
        args.config,
        [Cell(variant, seed) for seed in args.seeds for variant in variants],
        args.out,
        args.work_dir,
        options=args.cfg_options,
        metric=args.metric,
        stretch=args.stretch,
        jobs=args.jobs,
        progress=lambda line: print(line, flush=True),
    )
    if results:
        table = results_table(results)
        print(table)
        (Path(args.out) / 'table.md').write_text(table + '\n')
        curves_plot(results, Path(args.out) / 'curves.png')
    if failed:
        sys.exit(f'error: {len(failed)} runs failed: {", ".join(failed)}; their logs are in {args.work_dir}')
