"""Run the tests that need a GPU, then measure five configs and write JSON files.

Batches of 2 and 8, float32 and float16. If it is interrupted, the same command continues where it stopped.

python tools/gpu_check.py --out work_dirs/gpu
"""

import argparse
import json
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from manpp_mm.memory import measure, table
from manpp_mm.mode import USUAL

ROOT = Path(__file__).parents[1]
CONFIGS = {
    'faster_rcnn_r50_manpp_coco': (800, 1333),
    'faster_rcnn_r50_manpp_lean_coco': (800, 1333),
    'deeplabv3_r101_manpp_cityscapes': (512, 1024),
    'retinanet_r50_manpp_lean_coco': (800, 1333),
    'pspnet_r50_manpp_cityscapes': (512, 1024),
}
BATCHES = (2, 8)
PRECISIONS = ('float32', 'float16')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/gpu', help='folder for the JSON files')
    parser.add_argument('--minutes', type=float, default=7, help='start no measurement after this many minutes')
    parser.add_argument('--repeats', type=int, default=6, help='timed steps per mode')
    parser.add_argument('--skip-tests', action='store_true', help='measure only')
    parser.add_argument('--commit', help='commit to record (default: the one that git reports)')
    args = parser.parse_args()
    if args.repeats < 1 or args.minutes <= 0:
        parser.error('--repeats must be 1 or more, --minutes positive')
    if not torch.cuda.is_available():
        sys.exit('error: there is no GPU, or this PyTorch does not see it')
    return args


def main() -> None:
    begin = time.monotonic()
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    where = dict(
        device=torch.cuda.get_device_name(), torch=torch.__version__, cudnn=torch.backends.cudnn.version(),
        commit=args.commit or commit(),
    )  # fmt: skip
    passed = args.skip_tests or tests(args.out / 'gpu_tests.json', where)
    MMLogger.get_instance('mmengine', log_level='WARNING')
    missing = []
    for precision, batch, name in product(PRECISIONS, BATCHES, CONFIGS):
        size = CONFIGS[name]
        path = args.out / f'{name}-{batch}x{size[0]}x{size[1]}-{precision}.json'
        if kept(path, where):
            continue
        if time.monotonic() - begin > 60 * args.minutes:
            missing.append(path.name)
            continue
        config = Config.fromfile(ROOT / f'configs/{name}.py')
        amp = torch.float16 if precision == 'float16' else None
        found = measure(config, USUAL, batch, size, args.repeats, 'cuda', amp=amp)
        print(f'\n{path.stem}, {time.monotonic() - begin:.0f} s\n{table(found)}', flush=True)
        modes = {mode: result.as_dict() for mode, result in found.items()}
        write(path, dict(config=f'configs/{name}.py', **where, amp=None if amp is None else precision, seed=0,
                         input=[batch, *size], modes=modes))  # fmt: skip
        torch.cuda.empty_cache()
    if missing:
        sys.exit(f'{len(missing)} files are missing; run this again to continue: {", ".join(missing)}')
    if not passed:
        sys.exit('error: tests failed, see above')


def tests(path: Path, where: dict) -> bool:
    """Run the tests that need a GPU, unless they have already passed on this machine."""
    if kept(path, where):
        return True
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-m', 'gpu', '-q'], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    print(done.stdout, flush=True)
    if done.returncode == 0:
        write(path, dict(**where, summary=done.stdout.strip().splitlines()[-1]))
    return done.returncode == 0


def kept(path: Path, where: dict) -> bool:
    """Return whether a file from this GPU and commit exists."""
    if not path.is_file():
        return False
    found = json.loads(path.read_text())
    return all(found.get(key) == value for key, value in where.items())


def write(path: Path, figures: dict) -> None:
    """Write a file atomically: a killed process leaves the old file or none."""
    half = path.with_suffix('.tmp')
    half.write_text(json.dumps(figures, indent=2) + '\n')
    half.replace(path)


def commit() -> 'str | None':
    """Return the current commit, None without git."""
    try:
        found = subprocess.run(['git', 'describe', '--always', '--dirty'], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return found.stdout.strip() or None


if __name__ == '__main__':
    main()
