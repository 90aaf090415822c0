"""Evaluate a checkpoint: box AP for a detector, mIoU for a segmentor.

manpp test configs/faster_rcnn_r50_manpp_coco.py work_dirs/faster_rcnn_r50_manpp_coco/epoch_12.pth
"""

import argparse
from collections.abc import Sequence

from mmengine.config import Config

from ..checkpoint_file import check_checkpoint_file, check_fits
from ..cli import arguments, checking
from ..cli import runner as running


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_config_argument(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', help='save the predictions: a .pkl file (detector) or a folder (segmentor)')
    parser.add_argument('--show', action='store_true', help='show painted images in a window')
    parser.add_argument('--show-dir', help='folder for painted images')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds to show each image with --show')
    parser.add_argument('--tta', action='store_true', help='use test-time augmentation')
    arguments.add_check_argument(parser)
    arguments.add_common_arguments(parser)
    return parser.parse_args(argv)


def prepared(args: argparse.Namespace) -> tuple[Config, list[str]]:
    """Return the config to test, and warnings."""
    check_checkpoint_file(args.checkpoint, 'checkpoint')
    config = arguments.load_config(args)
    config.load_from = args.checkpoint
    warnings = [] if args.no_check else checking.before_testing(config)
    config, _ = running.prepare(config, args.checkpoint)
    if args.show or args.show_dir:
        arguments.enable_painting(config, args.show, args.show_dir, args.wait_time)
    if args.tta:
        arguments.enable_tta(config)
    if args.out is not None:
        arguments.enable_output(config, args.out)
    return config, warnings


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    config, warnings = prepared(args)
    runner = running.build_runner(config)
    for warning in warnings:
        runner.logger.warning(warning)
    check_fits(runner.model, args.checkpoint)
    runner.test()
