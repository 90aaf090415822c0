"""Evaluate a checkpoint: box AP for a detector, mIoU for a segmentor.

python tools/test.py configs/faster_rcnn_r50_manpp_coco.py work_dirs/faster_rcnn_r50_manpp_coco/epoch_12.pth
"""

import argparse

from manpp_mm import launch


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', help='a .pkl file (detector) or a folder (segmentor) for the predictions')
    parser.add_argument('--show', action='store_true', help='show painted images in a window')
    parser.add_argument('--show-dir', help='folder for painted images')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show shows an image')
    parser.add_argument('--tta', action='store_true', help='test with augmentation')
    launch.add_common_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    launch.check_checkpoint_file(args.checkpoint, 'checkpoint')
    config = launch.load_config(args)
    config.load_from = args.checkpoint
    launch.plan_cuts(config, args.checkpoint)
    if args.show or args.show_dir:
        launch.enable_painting(config, args.show, args.show_dir, args.wait_time)
    if args.tta:
        launch.enable_tta(config)
    if args.out is not None:
        launch.enable_output(config, args.out)
    launch.check_data(config, 'test')
    runner = launch.build_runner(config)
    launch.check_fits(runner.model, args.checkpoint)
    runner.test()


if __name__ == '__main__':
    main()
