"""Every command in README and docs runs: its own flags, on a small stand-in of the config that it names."""

import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from documents import DOCUMENTS, ROOT, commands
from in_process import TOOLS, command
from mmengine.config import Config
from runners import coco_runner_config, segmentation_runner_config
from small_configs import small

from manpp_mm.commands import COMMANDS
from manpp_mm.compat.config_prefix import read_config
from manpp_mm.methods import without_local

pytestmark = pytest.mark.slow

NOT_RUN = {
    'pip': 'tests have no network; the environment that runs them was installed by it',
    'source': 'it activates the environment that runs the tests',
    'pre-commit': 'it is no requirement of the tests; its hooks are those of `make lint`',
    'mim': 'it is no requirement; it runs the tools in the wheel, as test_downstream.py does',
    'tensorboard': 'it serves pages until it is stopped; test_visualizer.py reads what it would show',
    'csCreateTrainIdLabelImgs': 'it takes Cityscapes',
}
MAKE_NOT_RUN = {
    'install': 'it made this environment',
    'lint': 'CI runs it',
    'docs': 'CI runs it',
    'test': 'it runs the tests',
    'test-slow': 'it runs these tests',
    'gpu': 'tests/memory/test_gpu_check.py runs its tool on a card of straw',
}
ELSEWHERE = {'your_data.md': 'test_your_data.py runs its commands as written, on its own configs'}
COMMANDS_OF: dict[str, list[tuple[str, ...]]] = {}
"""The commands of each document; what two of them show is the first one's."""

for document in DOCUMENTS:
    if document.name not in ELSEWHERE:
        earlier = {words for found in COMMANDS_OF.values() for words in found}
        own = dict.fromkeys(map(tuple, commands(document.read_text())))
        COMMANDS_OF[document.relative_to(ROOT).as_posix()] = [words for words in own if words not in earlier]
COMPARED = ('demo_faster_rcnn_r18_manpp', 'cifar10_resnet32_small_manpp')
"""Configs small enough for a run of ``tools/compare.py`` in a test; test_grid.py runs a segmentor's."""

SIZE = ['2', '64', '128']


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    """A folder to run in: the checkout's configs and tools, drawn scenes, a trained detector's work folder."""
    folder = tmp_path_factory.mktemp('world')
    for name in ('configs', 'tools'):
        (folder / name).symlink_to(ROOT / name)
    scenes = folder / 'data/demo'
    subprocess.run([sys.executable, ROOT / 'tools/make_demo_data.py', scenes, '--train', '4', '--val', '2'], check=True)
    coco_runner_config(folder / 'coco', validate=True).dump(folder / 'detector.py')
    segmentation_runner_config(folder / 'labels', validate=True).dump(folder / 'segmentor.py')
    return folder


@pytest.fixture
def stand_ins(world, monkeypatch):
    """Configs are exchanged for small ones when a command reads them."""

    def read(name: 'str | Path') -> Config:
        name = str(name)
        if '::' not in name and name != 'my_config.py':
            config = read_config(world / name)
            return small(config, world / 'data/demo') if 'configs/' in name else config
        if '::' in name:
            read_config(name)  # it is there
        config = read_config(world / ('segmentor.py' if name.startswith('mmseg::') else 'detector.py'))
        config = without_local(config)
        config.custom_hooks = []
        for key in ('dataloader', 'evaluator', 'cfg'):
            config[f'test_{key}'] = config[f'val_{key}'] if key != 'cfg' else dict(type='TestLoop')
        return config

    for module in ('cli.arguments', 'commands.fit', 'commands.benchmark', 'comparison.grid', 'memory.fit', 'inference'):
        monkeypatch.setattr(f'manpp_mm.{module}.read_config', read)
    # Predicting a full model's memory takes longer than all else; test_your_data.py and test_fit.py look at it.
    monkeypatch.setattr('manpp_mm.cli.runner.predict_memory', lambda config: '')
    monkeypatch.setenv('DEMO_ROOT', str(world / 'data/demo'))
    monkeypatch.chdir(world)
    return read


@pytest.mark.parametrize('document', COMMANDS_OF)
def test_commands(document, world, stand_ins, monkeypatch):
    ran = 0
    for words in COMMANDS_OF[document]:
        for program, argv in programs(list(words), world):
            run(program, argv, world, stand_ins, monkeypatch)
            ran += 1
    shown = [words for words in COMMANDS_OF[document] if words[0] not in NOT_RUN and words[0] != 'make']
    assert ran >= len(shown)


def programs(words: list[str], world: Path) -> list[tuple[str, list[str]]]:
    """What a command runs: names of tools and their flags."""
    program, *argv = words
    if program in NOT_RUN:
        return []
    if program == 'make':
        (target,) = argv
        if target in MAKE_NOT_RUN:
            return []
        done = subprocess.run(['make', '-n', '-C', ROOT, target], capture_output=True, text=True, check=True)
        lines = done.stdout.replace('\\\n', ' ').splitlines()
        found = [line.split() for line in lines if 'tools/' in line and 'make_demo_data' not in line]
        assert found, target
        return [(Path(line[1]).stem, line[2:]) for line in found]
    if program == 'manpp':
        name = argv[0].replace('-', '_')
        assert name in COMMANDS
        return [(name, argv[1:])]
    if program == 'python' and argv[0] == '-c':
        subprocess.run([sys.executable, *argv], check=True, capture_output=True)
        return [('-c', [])]
    if program == 'bash':
        return [launched(argv, world)]
    if argv[0] == 'tools/benchmark_split.py':  # it takes minutes, and root for its network namespaces
        flags = runpy.run_path(str(ROOT / argv[0]))['parse_args'](argv[1:])
        assert (ROOT / flags.config).is_file()
        return [('-c', [])]
    assert program == 'python', words
    assert (ROOT / argv[0]).is_file(), words
    return [(Path(argv[0]).stem, argv[1:])]


def launched(argv: list[str], world: Path) -> tuple[str, list[str]]:
    """What ``dist_train.sh`` starts in each process, and what ``split_train.sh`` starts.

    test_tools.py, test_distributed.py and test_split_training.py run them in two.
    """
    stub = world / 'python'
    stub.write_text('#!/bin/sh\n[ "$1" = -c ] || echo "$@"\n')
    stub.chmod(0o755)
    done = subprocess.run(
        ['bash', *argv], cwd=world, env=dict(PYTHON=str(stub), PATH='/usr/bin:/bin'), capture_output=True, text=True
    )
    words = done.stdout.split()
    if argv[0] == 'tools/split_train.sh':
        assert words[0].endswith('tools/split_train.py')
        assert (ROOT / words[1]).is_file()
        return 'split_train', words[1:]
    assert f'--nproc_per_node={argv[2]}' in words
    (place,) = (place for place, word in enumerate(words) if word.endswith('tools/train.py'))
    rest = [word for word in words[place + 1 :] if word not in ('--launcher', 'pytorch')]
    assert len(words) - place - 1 - len(rest) == 2
    return 'train', rest


def run(
    program: str, argv: list[str], world: Path, read: Callable[[str], Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run a tool's command at a small size."""
    if program == '-c':
        return
    name = TOOLS.get(program, program)
    assert name in COMMANDS, program
    for place, word in enumerate(argv):
        if word == '--input':
            argv[place + 1 : place + 4] = SIZE
        if re.search(r'work_dirs/.*\.pth$', word):
            trained(world / word)
        if word.startswith('$(cat'):  # the demo's last checkpoint
            argv[place : place + 2] = [Path(argv[place + 1].rstrip(')')).read_text()]
    if name == 'benchmark':
        argv += ['--input', *SIZE, '--repeats', '0']
        if '--amp' in argv:  # float16 needs a GPU
            place = argv.index('--amp')
            del argv[place : place + 2]
        if '--batch-sizes' in argv:
            argv += ['--batch-sizes', '2']
    if (name == 'fit' or '--blocks' in argv) and argv[0].startswith('configs/'):  # planning a full model takes minutes
        argv[0] = 'segmentor.py' if 'deeplab' in argv[0] else 'detector.py'
    if '--depths' in argv:  # that of the small model
        place = argv.index('--depths')
        argv[place + 1 : place + 3] = ['18']
    quick = name == 'compare' and Path(argv[0]).stem in COMPARED
    if quick:  # one of the variants on one seed
        place = argv.index('--variants')
        names = []
        while place + 1 + len(names) < len(argv) and not argv[place + 1 + len(names)].startswith('--'):
            names.append(argv[place + 1 + len(names)])
        chosen = next((each for each in names if 'manpp' in each and 'end_to_end' not in each), names[0])
        argv[place + 1 : place + 1 + len(names)] = [chosen]
        argv += ['--seeds', '0', '--jobs', '1']
    with monkeypatch.context() as context:
        if '--memory' in argv and argv[argv.index('--memory') + 1] == 'auto':
            for module in ('cli.arguments', 'memory.fit'):  # there may be no GPU whose memory could be asked for
                context.setattr(f'manpp_mm.{module}.budget_bytes', lambda memory: memory and 8 * 2**30)
        if name == 'split_train':  # its flags are read
            context.setattr('manpp_mm.commands.split_train.launch', lambda *_: None)
        if name == 'compare' and not quick:  # every cell is configured, none is trained
            context.setattr('manpp_mm.comparison.grid._initial_weights', lambda *_: None)
            context.setattr('manpp_mm.comparison.grid.subprocess.run', lambda *_, **__: SimpleNamespace(returncode=0))
        command(program, *argv)


def trained(checkpoint: Path) -> None:
    """The checkpoint that a whole training would have left: the last one of the short training before."""
    if checkpoint.exists():
        return
    folder = checkpoint.parent
    if not (folder / 'last_checkpoint').exists():
        config = 'configs/demo_faster_rcnn_r18_manpp.py' if folder.name == 'demo' else f'configs/{folder.name}.py'
        command('train', config, '--work-dir', folder)
    shutil.copy((folder / 'last_checkpoint').read_text(), checkpoint)
