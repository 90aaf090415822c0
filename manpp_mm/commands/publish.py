"""Write the plain model from a checkpoint: no auxiliary networks, no optimizer, a config without manpp_mm.

manpp publish work_dirs/faster_rcnn_r50_manpp_coco/epoch_12.pth faster_rcnn_r50.pth
"""

import argparse
from collections.abc import Sequence

from ..cli import errors
from ..publish import publish


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='IN', help='training checkpoint, block-local or not')
    parser.add_argument('target', metavar='OUT', help='file to write; NAME.pth becomes NAME-HASH.pth')
    parser.add_argument('--raw', action='store_true', help='with EMAHook: the weights without averaging')
    errors.add_traceback_argument(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    print(publish(args.source, args.target, args.raw))
