"""Plot the block losses and scaling biases of a training run.

manpp plot-log work_dirs/faster_rcnn_r50_manpp_coco --out curves.png
"""

import argparse
from collections.abc import Sequence

from ..cli import errors
from ..memory import plot_training, read_scalars


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='work folder of a training run, or a scalars.json')
    parser.add_argument('--out', default='curves.png', help='image file to write')
    errors.add_traceback_argument(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    plot_training(read_scalars(args.folder), args.out)
    print(f'written to {args.out}')
