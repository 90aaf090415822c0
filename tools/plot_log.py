"""Draw block losses and scaling biases of a training into a picture.

python tools/plot_log.py work_dirs/faster_rcnn_r50_manpp_coco --out curves.png
"""

import argparse

from manpp_mm.cli import errors
from manpp_mm.memory import plot_training, read_scalars


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='work folder of a training, or a scalars.json')
    parser.add_argument('--out', default='curves.png', help='the picture')
    errors.add_traceback_argument(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    plot_training(read_scalars(args.folder), args.out)
    print(f'written to {args.out}')


if __name__ == '__main__':
    errors.run(main)
