"""Measure memory and time of one forward and backward, end-to-end and block-local, in one run.

python tools/benchmark.py configs/faster_rcnn_r50_manpp_coco.py --input 2 800 1333 --json result.json
"""

import argparse
import json
import platform

import torch
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger

import manpp_mm  # noqa: F401
from manpp_mm.profiling import MODES, measure


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a block-local detector or segmentor')
    parser.add_argument(
        '--input', nargs=3, type=int, metavar=('N', 'H', 'W'), default=(2, 800, 1333), help='images, height, width'
    )
    parser.add_argument('--modes', nargs='+', choices=MODES, default=['end_to_end', 'local', 'frozen'])
    parser.add_argument('--repeats', type=int, default=3, help='timed steps of each mode, 0 for memory alone')
    parser.add_argument('--json', help='file for the figures')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override config keys: key=value ...')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    config = Config.fromfile(args.config)
    if args.cfg_options is not None:
        config.merge_from_dict(args.cfg_options)
    MMLogger.get_instance('mmengine', log_level='WARNING')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    batch, height, width = args.input
    results = measure(config, args.modes, batch, (height, width), args.repeats, device)
    reference = results[args.modes[0]]
    print(f'{"mode":<26}{"peak MB":>10}{"ratio":>8}{"seconds":>10}{"ratio":>8}{"spread":>9}')
    for mode, found in results.items():
        print(
            f'{mode:<26}{found.peak_bytes / 1e6:>10.0f}{found.peak_bytes / reference.peak_bytes:>8.3f}'
            f'{found.step_seconds:>10.2f}{found.step_seconds / reference.step_seconds:>8.2f}'
            f'{found.step_seconds_spread:>9.2f}'
        )
    if args.json:
        name = torch.cuda.get_device_name() if device == 'cuda' else platform.processor() or platform.machine()
        with open(args.json, 'w') as file:
            json.dump(
                {
                    'config': args.config,
                    'device': name,
                    'input': list(args.input),
                    'modes': {mode: found.as_dict() for mode, found in results.items()},
                },
                file,
                indent=2,
            )


if __name__ == '__main__':
    main()
