"""Evaluate a checkpoint: box AP for a detector, mIoU for a segmentor.

python tools/test.py configs/faster_rcnn_r50_manpp_coco.py work_dirs/faster_rcnn_r50_manpp_coco/epoch_12.pth
"""

import argparse
import sys

from mmengine.config import Config

from manpp_mm.checkpoint_file import check_checkpoint_file, check_fits
from manpp_mm.cli import arguments
from manpp_mm.cli import runner as running
from manpp_mm.datasets.check_files import check_data


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help="config file, or a package's: mmdet::..., mmseg::..., manpp_mm::...")
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', help='a .pkl file (detector) or a folder (segmentor) for the predictions')
    parser.add_argument('--show', action='store_true', help='show painted images in a window')
    parser.add_argument('--show-dir', help='folder for painted images')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show shows an image')
    parser.add_argument('--tta', action='store_true', help='test with augmentation')
    arguments.add_common_arguments(parser)
    return parser.parse_args()


def prepared(args: argparse.Namespace) -> Config:
    """The config as it is to be tested."""
    check_checkpoint_file(args.checkpoint, 'checkpoint')
    config = arguments.load_config(args)
    config.load_from = args.checkpoint
    config, _ = running.prepare(config, args.checkpoint)
    if args.show or args.show_dir:
        arguments.enable_painting(config, args.show, args.show_dir, args.wait_time)
    if args.tta:
        arguments.enable_tta(config)
    if args.out is not None:
        arguments.enable_output(config, args.out)
    check_data(config, 'test')
    return config


def main() -> None:
    args = parse_args()
    try:
        config = prepared(args)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'error: {error}')
    runner = running.build_runner(config)
    check_fits(runner.model, args.checkpoint)
    runner.test()


if __name__ == '__main__':
    main()
