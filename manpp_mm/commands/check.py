"""Check a config's data and summarize what training would use: images, boxes or pixels per class, and what is dropped.

manpp check configs/demo_faster_rcnn_r18_manpp.py --out-dir checked
"""

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ..checks import check_everything
from ..checks.samples import paint_samples
from ..cli import arguments


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_config_argument(parser)
    parser.add_argument('--out-dir', help='folder for a few painted training images')
    parser.add_argument('--samples', type=int, default=4, help='how many images to paint')
    parser.add_argument('--splits', nargs='+', choices=['train', 'val', 'test'], default=['train', 'val'])
    arguments.add_common_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    config = arguments.load_config(args)
    report = check_everything(config, *args.splits)
    console = Console(width=None if Console().is_terminal else 120)
    for key, found in report.summary.items():
        console.print(f'{key}: {found}', markup=False)
        if key in report.sizes:
            console.print(report.sizes[key], markup=False)
        table = Table()
        for column in found.columns():
            table.add_column(column, justify='left' if column == 'class' else 'right')
        for row in found.rows():
            table.add_row(*row)
        console.print(table)
    for warning in report.warnings:
        console.print(f'warning: {warning}', style='yellow', soft_wrap=True, markup=False)
    if args.out_dir is not None:
        painted = paint_samples(config, args.out_dir, args.samples)
        console.print(f'painted: {len(painted)} training images in {args.out_dir}', markup=False)
    console.print(f'{len(report.warnings)} warnings, no error')
