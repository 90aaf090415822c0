"""Time a training in one process, split over several, and with DDP, in turns.

python tools/benchmark_split.py configs/experiments/camvid_deeplabv3_r18_split.py 2 --rounds 3
python tools/benchmark_split.py configs/experiments/camvid_deeplabv3_r18_split.py 2 --link 1gbit

With --link (needs root), each process has a network namespace of its own, and split training and DDP take turns with
and without that limit of the link between them. DDP's processes divide the batch. The config logs several times and
does not validate; the first tenth of the iterations does not count.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from manpp_mm.cli import errors
from manpp_mm.cli.arguments import add_config_argument
from manpp_mm.compat.config_prefix import read_config

HERE = Path(__file__).parent
_numbers = count()


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_argument(parser)
    parser.add_argument('processes', type=int, help='number of processes')
    parser.add_argument('--rounds', type=int, default=3, help='runs of each kind (default: 3)')
    parser.add_argument('--link', metavar='RATE', help="limit of the link between namespaces, as for tc: '1gbit'")
    parser.add_argument('--json', help='write the results to this JSON file')
    parser.add_argument('--flags', nargs=argparse.REMAINDER, default=[], help='flags of tools/split_train.sh, last')
    errors.add_traceback_argument(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    batch = read_config(args.config).train_dataloader.batch_size
    if batch % args.processes:
        raise ValueError(f"DDP divides the batch: {args.processes} processes do not divide the config's {batch} images")
    ddp = ['--cfg-options', f'train_dataloader.batch_size={batch // args.processes}']
    ways = {'split': ('split_train.sh', args.flags), 'DDP': ('dist_train.sh', ddp)}
    links = [''] if args.link is None else ['', f', {args.link}']
    kinds = [*(['one process'] if args.link is None else []), *(f'{way}{link}' for way in ways for link in links)]
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(args.rounds):
        for kind in kinds:
            with tempfile.TemporaryDirectory() as folder:
                if kind == 'one process':
                    run([[sys.executable, HERE / 'train.py', *common(args, folder)]])
                else:
                    way, _, rate = kind.partition(', ')
                    script, flags = ways[way]
                    run_ranks(args, [HERE / script], [*common(args, folder)[1:], *flags], rate)
                found[kind].append(seconds(Path(folder)))
            print(f'{kind}: {found[kind][-1]:.4f} s a step', flush=True)
    means = {kind: sum(values) / len(values) for kind, values in found.items()}
    for kind in kinds:
        print(f'{kind}: {means[kind]:.4f} s a step, {means[kinds[0]] / means[kind]:.2f} of the speed of {kinds[0]}')
    if args.json:
        Path(args.json).write_text(json.dumps(dict(config=args.config, flags=args.flags, seconds=found), indent=1))


def common(args: argparse.Namespace, folder: str) -> list:
    return [args.config, '--work-dir', folder, '--no-check']


def run_ranks(args: argparse.Namespace, script: list, flags: list, rate: str) -> None:
    """Run a launcher script, with --link once in each namespace."""
    if args.link is None:
        run([[*script, args.config, args.processes, *flags]])
        return
    with namespaces(args.processes, rate or None) as wrappers:
        run([[*wrapper, *script, args.config, 1, *flags] for wrapper in wrappers])


def run(commands: list[list]) -> None:
    """Run commands side by side.

    Raises:
        RuntimeError: One failed.
    """
    environment = os.environ | dict(OMP_NUM_THREADS='1', PYTHON=sys.executable)
    running = [
        subprocess.Popen(
            [str(part) for part in command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for command in commands
    ]
    outputs = [process.communicate() for process in running]
    for process, (_, err) in zip(running, outputs, strict=True):
        if process.returncode:
            raise RuntimeError(err.decode()[-2000:])


def seconds(folder: Path) -> float:
    """Return the mean time of a step."""
    (path,) = folder.glob('*/vis_data/scalars.json')
    steps = [entry for line in path.read_text().splitlines() if 'time' in (entry := json.loads(line))]
    late = [entry['time'] for entry in steps if entry['step'] > steps[-1]['step'] / 10 + 1]
    return sum(late) / len(late)


@contextmanager
def namespaces(number: int, rate: str | None) -> Iterator[list[list[str]]]:
    """Create network namespaces on one bridge; yields the command prefix of each."""

    def ip(*words: str) -> None:
        subprocess.run(['ip', *words], check=True)

    # The kernel removes the interfaces of a deleted namespace later, so each gets a name of its own.
    names = [f'manpp{next(_numbers)}' for _ in range(number)]
    ip('link', 'add', 'manppbr', 'type', 'bridge')
    try:
        ip('link', 'set', 'manppbr', 'up')
        for index, name in enumerate(names):
            ip('netns', 'add', name)
            ip('link', 'add', f'{name}o', 'type', 'veth', 'peer', 'name', 'net0', 'netns', name)
            ip('link', 'set', f'{name}o', 'master', 'manppbr', 'up')
            ip('-n', name, 'addr', 'add', f'10.97.0.{index + 1}/24', 'dev', 'net0')
            ip('-n', name, 'link', 'set', 'net0', 'up')
            ip('-n', name, 'link', 'set', 'lo', 'up')
            if rate is not None:
                limit = ['tbf', 'rate', rate, 'burst', '256kb', 'latency', '50ms']
                ip('netns', 'exec', name, 'tc', 'qdisc', 'add', 'dev', 'net0', 'root', *limit)
        shared = [f'NNODES={number}', 'MASTER_ADDR=10.97.0.1', 'PORT=29517', 'GLOO_SOCKET_IFNAME=net0']
        yield [['ip', 'netns', 'exec', name, 'env', *shared, f'NODE_RANK={index}'] for index, name in enumerate(names)]
    finally:
        for name in names:
            subprocess.run(['ip', 'netns', 'del', name], check=False)
        ip('link', 'del', 'manppbr')


if __name__ == '__main__':
    errors.run(main)
