"""A grid of two small runs: equal terms, kept results, runs that go on after an interruption."""

import json
import shutil
import sys

import pytest
import torch
from mmengine.config import Config
from processes import execute
from runners import segmentation_runner_config

from manpp_mm.comparison import Cell, parse_variant, run_grid
from manpp_mm.comparison.grid import final
from manpp_mm.memory.footprint import footprint


@pytest.fixture(scope='module')
def grid(tmp_path_factory):
    folder = tmp_path_factory.mktemp('grid')
    config = segmentation_runner_config(folder, validate=True)
    config.custom_hooks = [*config.custom_hooks, dict(type='ReproducibleHook')]
    config.default_hooks.checkpoint = dict(type='AtomicCheckpointHook', interval=2, by_epoch=False)
    config.custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
    config.dump(folder / 'config.py')
    lines = []
    cells = [Cell(parse_variant(name), 0) for name in ('end_to_end', 'manpp_exact_start')]
    results, failed = run_grid(
        folder / 'config.py', cells, folder / 'out', folder / 'runs', stretch=0.5, jobs=2, progress=lines.append
    )
    assert failed == [], (folder / f'runs/{failed[0]}.log').read_text()[-3000:]
    return folder, cells, results, lines


@pytest.mark.slow
def test_what_a_result_holds(grid):
    folder, _, results, lines = grid
    assert len(lines) == 2
    for result, variant in zip(results, ('end_to_end', 'manpp_exact_start'), strict=True):
        kept = json.loads((folder / f'out/{variant}_seed0.json').read_text())
        assert result == kept | dict(metric='mIoU')
        assert result['initial'] == next(folder.glob('runs/initial_seed0-*.pth')).name  # no path of a machine
        assert result['definition'] == variant
        assert (result['variant'], result['seed'], result['iterations']) == (variant, 0, 4)
        assert [line['iteration'] for line in result['curve']] == [2, 4]
        assert final(result) == result['curve'][1]['metrics']['mIoU']
        assert 0 < result['curve'][0]['seconds'] < result['curve'][1]['seconds'] <= result['seconds'] + 0.1
        assert result['peak_bytes'] > 0
        assert result['versions']['torch'].partition('+')[0] == torch.__version__.partition('+')[0]
    backbone = Config.fromfile(folder / 'config.py').model.backbone
    assert results[0]['local'] == {}
    assert results[1]['local']['cuts'] == [list(cut) for cut in backbone.cuts]
    assert results[1]['local']['auxiliary']['head'] == backbone.auxiliary.head
    configs = [Config.fromfile(folder / f'runs/{r["variant"]}_seed0.py') for r in results]
    peaks = {mode: footprint(configs[1], mode).peak_at(2, (64, 64)) for mode in ('end_to_end', 'local', 'exact')}
    assert results[0]['peak_bytes'] == peaks['end_to_end']
    assert results[1]['peak_bytes'] == max(peaks['local'], peaks['exact'])


@pytest.mark.slow
def test_they_start_from_the_same_weights_and_one_step_of_exact_is_one_end_to_end(grid):
    folder, *_ = grid
    initial = torch.load(next(folder.glob('runs/initial_seed0-*.pth')))['state_dict']
    whole, own = (
        torch.load(next(folder.glob(f'runs/{name}_seed0-*/iter_2.pth')), weights_only=False)['state_dict']
        for name in ('end_to_end', 'manpp_exact_start')
    )
    assert set(initial) == set(whole) == {name for name in own if not name.startswith('backbone.auxiliary.')}
    moved = 0.0
    for name, value in whole.items():  # the first half of the schedule is exact: the same batches, the same steps
        torch.testing.assert_close(own[name], value, rtol=1e-3, atol=1e-5)
        moved = max(moved, float((value.double() - initial[name].double()).abs().max()))
    assert moved > 1e-4


@pytest.mark.slow
def test_what_is_done_is_kept_and_what_was_interrupted_goes_on(grid):
    folder, cells, results, _ = grid
    lines = []
    again = dict(out=folder / 'out', work_dir=folder / 'runs', stretch=0.5, progress=lines.append)
    assert run_grid(folder / 'config.py', cells, **again) == (results, [])
    assert lines == ['end_to_end_seed0: already done', 'manpp_exact_start_seed0: already done']
    with pytest.raises(ValueError, match='is from another config, schedule or stretch: move it away'):
        run_grid(folder / 'config.py', cells, **again | dict(stretch=0.25))
    # As if killed after the checkpoint of iteration 2 and the validation there.
    (folder / 'out/manpp_exact_start_seed0.json').unlink()
    (work,) = (path for path in folder.glob('runs/manpp_exact_start_seed0-*') if path.is_dir())
    (work / 'iter_4.pth').unlink()
    (work / 'last_checkpoint').write_text(str(work / 'iter_2.pth'))
    curve = (work / 'curve.jsonl').read_text().splitlines()
    (work / 'curve.jsonl').write_text(curve[0] + '\n')
    resumed, failed = run_grid(folder / 'config.py', cells, **again)
    assert failed == []
    assert final(resumed[1]) == final(results[1])
    assert [line['iteration'] for line in resumed[1]['curve']] == [2, 4]
    assert f'{work.name}/iter_2.pth' in (folder / 'runs/manpp_exact_start_seed0.log').read_text()
    # As if killed while the last validation ran: nothing is left to train.
    (folder / 'out/manpp_exact_start_seed0.json').unlink()
    (work / 'curve.jsonl').write_text(curve[0] + '\n')
    resumed, failed = run_grid(folder / 'config.py', cells, **again)
    assert failed == []
    assert final(resumed[1]) == final(results[1])


@pytest.mark.slow
def test_another_metric_and_another_schedule(grid, tmp_path):
    folder, cells, results, _ = grid
    again = dict(out=folder / 'out', work_dir=folder / 'runs', stretch=0.5, progress=lambda line: None)
    other, _ = run_grid(folder / 'config.py', cells, metric='aAcc', **again)
    assert [final(result) for result in other] == [result['curve'][-1]['metrics']['aAcc'] for result in results]
    with pytest.raises(ValueError, match='--metric zzz: .* gives only aAcc, mIoU'):
        run_grid(folder / 'config.py', cells, metric='zzz', **again)
    # What lies in the work folder belongs to another schedule: a fresh run, not that one's.
    fresh, failed = run_grid(
        folder / 'config.py', cells[:1], **again | dict(out=tmp_path), options={'train_cfg.max_iters': 2}
    )
    assert failed == []
    assert (fresh[0]['iterations'], [line['iteration'] for line in fresh[0]['curve']]) == (2, [2])
    assert fresh[0]['seconds'] > 0


@pytest.mark.slow
def test_the_tool(grid, tmp_path):
    folder, *_ = grid
    out = tmp_path / 'out'
    shutil.copytree(folder / 'out', out)
    command = [sys.executable, 'tools/compare.py', folder / 'config.py', '--out', out, '--stretch', 0.5, '--seeds', 0]
    command += ['--work-dir', tmp_path / 'runs', '--variants', 'end_to_end', 'manpp_exact_start']
    done = execute(*command)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (out / 'table.md').read_text().strip() in done.stdout
    assert (out / 'curves.png').is_file()
    done = execute(*command, 'zzz')
    assert done.returncode == 1
    assert "error: 'zzz' is not a variant" in done.stderr
    config = Config.fromfile(folder / 'config.py')
    config.model.decode_head.num_classes = 5  # not the data's
    config.dump(tmp_path / 'broken.py')
    command[2] = tmp_path / 'broken.py'
    command[4] = tmp_path / 'fresh'
    done = execute(*command)
    assert done.returncode == 1
    assert 'runs failed' in done.stderr
    assert 'Init' not in done.stdout + done.stderr  # MMEngine's lines for each parameter
