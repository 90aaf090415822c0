"""What the documents say: links, files, commands, keys and messages exist."""

import inspect
import json
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from documents import DOCUMENTS, ROOT, benchmark_table, commands

from manpp_mm import hooks
from manpp_mm.auxiliary import AuxiliaryNetwork
from manpp_mm.auxiliary.segmentation import SegmentationAuxiliary
from manpp_mm.backbones import LocalBackbone
from manpp_mm.comparison import read_results, results_table
from manpp_mm.compat.config_prefix import read_config

RUN_BY = {
    'tools/train.py': 'tests/end_to_end/test_tools.py::test_train_resume_and_test_a_detector',
    'tools/test.py': 'tests/end_to_end/test_tools.py::test_train_resume_and_test_a_detector',
    'tools/check_data.py': 'tests/end_to_end/test_your_data.py::test_a_detector_as_written',
    'tools/dist_train.sh': 'tests/end_to_end/test_tools.py::test_two_processes_on_a_cpu',
    'tools/benchmark.py': 'tests/memory/test_benchmark.py::test_the_tools',
    'tools/gpu_check.py': 'tests/memory/test_gpu_check.py::test_it_goes_on_where_it_was',
    'tools/fit.py': 'tests/memory/test_fit.py::test_the_command',
    'tools/plot_log.py': 'tests/hooks/test_local_scalars.py::test_they_reach_the_log_file_and_its_plot',
    'tools/make_demo_data.py': 'tests/end_to_end/test_tools.py::test_demo_data_is_deterministic_and_as_promised',
    'tools/compare.py': 'tests/comparison/test_grid.py::test_the_tool',
    'tools/publish_model.py': 'tests/end_to_end/test_your_data.py::test_a_detector_as_written',
    'tools/image_demo.py': 'tests/end_to_end/test_your_data.py::test_a_detector_as_written',
}
NOT_RUN = {
    'make': 'it is what runs the tests, and the demo takes minutes: its two commands are run with a shorter schedule',
    'pip': 'tests have no network',
    'mim': 'MIM is no requirement; what it runs, the tools in the wheel, tests/end_to_end/test_downstream.py runs',
    'tensorboard': 'it serves pages until it is stopped; tests/end_to_end/test_visualizer.py reads what it would show',
    'csCreateTrainIdLabelImgs': 'it takes Cityscapes',
}


def anchors(document: Path) -> set[str]:
    titles = re.findall(r'^#+ (.+)$', document.read_text(), re.M)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: path.name)
def test_links_and_files(document):
    text = document.read_text()
    for link in re.findall(r'\]\(([^)]+)\)', text):
        path, _, anchor = link.partition('#')
        if '://' in link:
            assert link.startswith('https://'), link
            continue
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
    for path in re.findall(r'`((?:tests|configs|tools|manpp_mm|docs)/[\w./-]+\.\w+)`', text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: path.name)
def test_every_command_is_run_by_a_test_or_says_why_not(document, monkeypatch):
    for words in commands(document.read_text()):
        program = words[1] if words[0] in ('python', 'bash') else words[0]
        if program in NOT_RUN:
            continue
        path, _, name = RUN_BY[program].partition('::')
        assert f'def {name}(' in (ROOT / path).read_text()
        if program.endswith('.py'):
            parses(program, words[2:], monkeypatch)


def parses(program: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The tool knows the flags; a config that it names is there."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)  # some flags need a GPU
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda: (8 * 2**30, 8 * 2**30))
    source = (ROOT / program).read_text()
    (command,) = re.findall(r'from manpp_mm.commands.(\w+) import main', source) or [None]
    if command is None:
        return
    config = getattr(import_module(f'manpp_mm.commands.{command}').parse_args(arguments), 'config', None)
    if config is not None and '::' in config:
        read_config(config)
        return
    yours = config in (None, 'CONFIG', 'my_config.py') or config.startswith('data/')
    assert yours or (ROOT / config).is_file()


def test_every_key_is_explained():
    text = (ROOT / 'docs/config.md').read_text()
    kinds = [LocalBackbone, AuxiliaryNetwork, SegmentationAuxiliary]
    if find_spec('mmpretrain') is not None:
        kinds.append(import_module('manpp_mm.auxiliary.classification').ClassificationAuxiliary)
    keys = {name for kind in kinds for name in inspect.signature(kind.__init__).parameters}
    keys -= {'self', 'args', 'kwargs', 'end', 'following', 'layout', 'norm_cfg'}  # not from a config
    for key in sorted(keys):
        assert re.search(rf'^\| .*`{key}(=|`)', text, re.M), key
    for name in hooks.__all__:
        (row,) = re.findall(rf'^\| `{name}(.*?)` \|', text, re.M)
        if name == 'AtomicCheckpointHook':  # its arguments are MMEngine's
            continue
        parameters = inspect.signature(getattr(hooks, name).__init__).parameters
        assert [key for key in parameters if key not in ('self', 'args', 'kwargs')] == re.findall(r'(\w+)=', row)


def test_messages_that_troubleshooting_explains_are_ours():
    source = ' '.join(path.read_text() for path in (ROOT / 'manpp_mm').rglob('*.py'))
    source = re.sub(r"""['"]\s*\n\s*f?['"]""", '', source)  # strings over several lines
    text = (ROOT / 'docs/troubleshooting.md').read_text()
    for message in (
        'needs a compiled mmcv; torchvision has no kernel that could stand in',
        'set exactly one of local_blocks and cuts',
        'the auxiliary networks have momentum branches that nothing updates',
        'trains block by block and has no targets',
        'parameters of the backbone received no gradient before the first optimizer step',
        '--cfg-options data_root=... changes nothing',
        'model.auxiliary_head sees detached features',
        'are padded to model.data_preprocessor.size',
        'is below the floor',
        'has no unit',
        'and a resumed run continues as it began',
        'the checkpoint was trained with other cuts or another auxiliary network',
        'block-local training is not made for FlexibleRunner',
        'Use Tensor.register_post_accumulate_grad_hook instead',
        'but the training data set has',
        'auxiliary.head needs norm_cfg',
        'is taken: ',
        'has no category',
        'MMDetection numbers classes by the file',
        'is a string, but not a file: write a single class with a comma',
        'boxes are used',
        'has an EXIF orientation',
        'images have another size than it says',
        'no annotation belongs to an image',
        'ids must differ',
        'has no segmentation',
        'a polygon needs three points or more',
        'begins with a byte order mark',
        'which has other',
        'Store classes as 0 and 1',
        'moves every label',
        'images are used, those that end in',
        'images have no label map',
        'the validation gives no such metric',
        'nothing reads the top-level key',
        'and a resumed run keeps the old one',
        'holds only weights',
        'could not be fetched',
        'the disk is full',
    ):
        assert message in text.replace('`', ''), message
        assert message in source, message


def test_every_guarantee_names_its_test():
    rows = re.findall(r'^\| (?!regime|---)(.+)$', (ROOT / 'docs/guarantees.md').read_text(), re.M)
    assert len(rows) > 20
    assert all('`tests/' in row for row in rows)


TABLES = re.findall(
    r'<!-- (results/\w+) by (\S+) -->\n((?:\|.*\n)+)',
    ''.join((ROOT / f'docs/{name}.md').read_text() for name in ('results', 'ablations')),
)


@pytest.mark.parametrize(('folder', 'metric', 'table'), TABLES, ids=[f'{table[0]}-{table[1]}' for table in TABLES])
def test_tables_of_results_are_made_from_their_runs(folder, metric, table):
    paths = sorted((ROOT / 'docs' / folder).glob('*.json'))
    head, rule, *rows = results_table(read_results(paths, metric)).splitlines()
    assert table.splitlines()[:2] == [head, rule]
    assert sorted(table.splitlines()[2:]) == sorted(rows)
    versions = {tuple(json.loads(path.read_text())['versions'].items()) for path in paths}
    assert len(versions) == 1  # one table, one environment


def test_every_run_that_is_kept_is_in_a_table():
    kept = {path.parent.name for path in (ROOT / 'docs/results').glob('*/*.json')}
    assert kept == {Path(folder).name for folder, *_ in TABLES}


def test_tables_from_a_gpu_are_what_the_benchmark_wrote():
    tables = re.findall(
        r'<!-- (benchmarks/[\w.-]+\.json) -->\n((?:\|.*\n)+)', (ROOT / 'docs/performance.md').read_text()
    )
    assert {f'benchmarks/{path.name}' for path in (ROOT / 'docs/benchmarks').iterdir()} == {name for name, _ in tables}
    for name, table in tables:
        assert table == benchmark_table(ROOT / 'docs' / name), name


@pytest.mark.parametrize('document', ['README.md', 'docs/choosing.md'])
def test_costs_outside_the_tables_are_theirs(document):
    text = (ROOT / document).read_text()
    sizes = dict(deeplabv3_r101_manpp_cityscapes='512x1024', retinanet_r50_manpp_lean_coco='800x1333',
                 faster_rcnn_r50_manpp_lean_coco='800x1333')  # fmt: skip
    for mode, row in (('exact', 'exact'), ('local', 'block-local')):
        (line,) = re.findall(rf'^\| {row}(?:, MAN\+\+)? \| (.*)$', text, re.M)
        for (config, size), cell in zip(sizes.items(), line.replace('*', '').split(' | '), strict=False):
            found = [
                json.loads((ROOT / f'docs/benchmarks/{config}-{batch}x{size}-float32.json').read_text())['modes']
                for batch in (2, 8)
            ]
            peak = found[0][mode]['peak_bytes'] / found[0]['end_to_end']['peak_bytes']
            times = [one[mode]['step_seconds'] / one['end_to_end']['step_seconds'] for one in found]
            assert cell == f'{peak:.2f}; {times[0]:.2f} and {times[1]:.2f}', (config, mode)


@pytest.mark.parametrize('document', ['README.md', 'docs/choosing.md', 'docs/results.md', 'docs/ablations.md'])
def test_accuracies_outside_the_tables_are_theirs(document):
    found = re.findall(r'\d+\.\d\d ± \d+\.\d\d', (ROOT / document).read_text())
    known = {row.split('|')[3].strip() for *_, table in TABLES for row in table.splitlines()[2:]}
    assert found
    assert set(found) <= known
