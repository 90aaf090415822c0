"""What the documents say: links, files, commands, keys and messages exist."""

import inspect
import json
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean

import pytest
from documents import DOCUMENTS, ROOT, benchmark_table

from manpp_mm import hooks
from manpp_mm.auxiliary import AuxiliaryNetwork
from manpp_mm.auxiliary.segmentation import SegmentationAuxiliary
from manpp_mm.backbones import LocalBackbone
from manpp_mm.comparison import read_results, results_table
from manpp_mm.comparison.report import by_variant, difference

README = (ROOT / 'README.md').read_text()


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


def test_the_readme_is_a_page():
    text = re.sub(r'^```.*?^```$', '', README, flags=re.M | re.S)
    paragraphs = [block for block in text.split('\n\n') if not block.lstrip().startswith(('|', '#', '!', '[!'))]
    parts = [part for block in paragraphs for part in re.split(r'^- ', block, flags=re.M)]
    assert max(len(part.split()) for part in parts) <= 60
    assert len(re.findall(r'^\|---', README, re.M)) <= 3


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


MEASURED = dict(deeplabv3_r101_manpp_cityscapes='512x1024', retinanet_r50_manpp_lean_coco='800x1333',
                faster_rcnn_r50_manpp_lean_coco='800x1333')  # fmt: skip


def costs(mode: str) -> list[tuple[float, float, float]]:
    """Peak at two images, and times at two and at eight, beside end-to-end's, of the three models that tables show."""
    rows = []
    for config, size in MEASURED.items():
        found = [
            json.loads((ROOT / f'docs/benchmarks/{config}-{batch}x{size}-float32.json').read_text())['modes']
            for batch in (2, 8)
        ]
        if all(mode in one for one in found):
            peak = found[0][mode]['peak_bytes'] / found[0]['end_to_end']['peak_bytes']
            rows.append((peak, *(one[mode]['step_seconds'] / one['end_to_end']['step_seconds'] for one in found)))
    return rows


@pytest.mark.parametrize(('mode', 'row'), [('exact', 'exact'), ('local', 'block-local')])
def test_costs_outside_the_tables_are_theirs(mode, row):
    text = (ROOT / 'docs/choosing.md').read_text()
    (line,) = re.findall(rf'^\| {row}(?:, MAN\+\+)? \| (.*)$', text, re.M)
    for (peak, *times), cell in zip(costs(mode), line.split(' | '), strict=False):
        assert cell == f'{peak:.2f}; {times[0]:.2f} and {times[1]:.2f}'


@pytest.mark.parametrize(('mode', 'row'), [('exact', '`--memory SIZE`'), ('local', '`--method manpp`')])
def test_costs_in_the_readme_are_theirs(mode, row):
    (line,) = re.findall(rf'^\| {row} \| (.*) \|$', README, re.M)
    peaks, _, times = zip(*costs(mode), strict=True)
    assert line.split(' | ')[2:4] == [f'{min(each):.2f} to {max(each):.2f}' for each in (peaks, times)]


def test_the_readmes_accuracy_is_that_of_all_pairs():
    own, whole, dgl, front = {}, {}, {}, {}
    folders = dict(camvid_h100='mIoU', camvid='mIoU', bccd='coco/bbox_mAP', camvid_scratch='mIoU')
    for folder, metric in (folders | dict(deeppcb_scratch='coco/bbox_mAP')).items():
        found = by_variant(read_results(sorted((ROOT / 'docs/results' / folder).glob('*.json')), metric))
        for values, name in ((own, 'manpp'), (whole, 'end_to_end'), (dgl, 'dgl'), (front, 'front_frozen')):
            values |= {(folder, seed): value for seed, value in found.get(name, {}).items()}
    text = (ROOT / 'docs/results.md').read_text()
    assert len(own) == 15
    assert difference(own, whole) == '-1.62 [-2.45, -0.79]'
    assert '| 1.6 points lower [0.8, 2.5] |' in README
    scratch = {key: value for key, value in own.items() if key[0] in ('camvid_scratch', 'deeppcb_scratch', 'bccd')}
    assert len(scratch) == 9
    for found in (difference(own, whole), difference(own, dgl), difference(scratch, front)):
        assert found in text


def test_the_readmes_cards_are_what_the_planner_found():
    found = json.loads((ROOT / 'docs/cards.json').read_text())
    head = re.escape('| largest batch |')
    (table,) = re.findall(rf'{head}.*\n\|.*\n((?:\|.*\n)+)', README)
    assert len(table.splitlines()) == len(found)
    for line, (model, one) in zip(table.splitlines(), found.items(), strict=True):
        cells = [' / '.join(str(way[card]) for way in one['batches'].values()) for card in ('8', '12', '16', '24')]
        assert line == f'| {model} | ' + ' | '.join(cells) + ' |'


@pytest.mark.parametrize('document', ['docs/choosing.md', 'docs/results.md', 'docs/ablations.md'])
def test_accuracies_outside_the_tables_are_theirs(document):
    found = re.findall(r'\d+\.\d\d ± \d+\.\d\d', (ROOT / document).read_text())
    known = {row.split('|')[3].strip() for *_, table in TABLES for row in table.splitlines()[2:]}
    assert found
    assert set(found) <= known


def test_the_figures_of_split_training_are_measured():
    text = (ROOT / 'docs/split.md').read_text()
    seconds = json.loads((ROOT / 'docs/split/speed.json').read_text())['seconds']
    means = {link: {way: fmean(found) for way, found in ways.items()} for link, ways in seconds.items()}
    rows = [f'| one machine | {" | ".join(f"{mean:.3f}" for mean in means["no link"].values())} |']
    for link in ('1gbit', '100mbit'):
        fast, slow = ([means[link][way + suffix] for way in ('split', 'DDP')] for suffix in ('', f', {link}'))
        rows += [f' | | {" | ".join(f"{mean:.3f}" for mean in found)} |' for found in (fast, slow)]
    for name in ('one', 'two'):
        for held in json.loads((ROOT / f'docs/split/{name}_process{"es" * (name == "two")}.json').read_text())['held']:
            parts = [held[key] for key in ('step', 'waiting', 'state')]
            rows.append(' | ' + ' | '.join(f'{value / 1e6:.1f}' for value in [*parts, sum(parts)]) + ' |')
    for row in rows:
        assert row in text, row
    ratio = means['no link']['one process'] / means['no link']['split']
    assert f'The split is {ratio:.2f}\ntimes as fast as one process' in text
