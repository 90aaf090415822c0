"""``manpp COMMAND`` and the scripts in ``tools/`` are the same."""

import os
import re
import subprocess
import sys
from importlib import import_module

import pytest
from in_process import TOOLS
from processes import ROOT, execute

from manpp_mm import __version__, commands


def say(monkeypatch: pytest.MonkeyPatch, *argv: str) -> None:
    monkeypatch.setattr(sys, 'argv', ['manpp', *argv])
    commands.main()


def test_help_lists_every_command(monkeypatch, capsys):
    say(monkeypatch)
    text = capsys.readouterr().out
    assert re.findall(r'^  ([\w-]+)  ', text, re.M) == [name.replace('_', '-') for name in commands.COMMANDS]
    say(monkeypatch, '--version')
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize('name', commands.COMMANDS)
def test_each_knows_its_own_name(name, monkeypatch, capsys):
    shown = name.replace('_', '-')
    with pytest.raises(SystemExit, match='0'):
        say(monkeypatch, shown, '--help')
    text = capsys.readouterr().out
    assert text.startswith(f'usage: manpp {shown} ')
    assert re.search(rf'^manpp {shown} ', text, re.M)  # an example


def test_an_unknown_command_and_an_error_are_a_line(monkeypatch, capsys):
    with pytest.raises(SystemExit, match='2'):
        say(monkeypatch, 'tran')
    assert capsys.readouterr().err.splitlines()[-1] == "error: manpp has no command 'tran': did you mean 'train'?"
    with pytest.raises(SystemExit, match=r'^error: there is no config none\.py'):
        say(monkeypatch, 'train', 'none.py')
    with pytest.raises(FileNotFoundError, match=r'^there is no config none\.py'):
        say(monkeypatch, 'train', 'none.py', '--traceback')


def test_each_has_a_script():
    scripts = {path.stem for path in (ROOT / 'tools').glob('*.py')} - {'make_demo_data', 'gpu_check', 'benchmark_split'}
    assert {TOOLS.get(name, name) for name in scripts} == set(commands.COMMANDS)
    for name in scripts:
        text = (ROOT / f'tools/{name}.py').read_text()
        assert f'from manpp_mm.commands.{TOOLS.get(name, name)} import main' in text
        assert text.rstrip().endswith('errors.run(main)')
        assert callable(import_module(f'manpp_mm.commands.{TOOLS.get(name, name)}').main)


def test_as_a_module_and_as_a_script():
    for command in ((sys.executable, '-m', 'manpp_mm', 'train'), (sys.executable, 'tools/train.py')):
        done = execute(*command, 'none.py')
        assert (done.returncode, done.stdout) == (1, '')
        assert done.stderr.splitlines()[-1].startswith('error: there is no config none.py')


@pytest.mark.parametrize(
    ('own', 'found'), [({}, '1000'), (dict(OMP_WAIT_POLICY='active'), None), (dict(GOMP_SPINCOUNT='5'), '5')]
)
def test_threads_hardly_spin_unless_the_user_says_otherwise(own, found):
    """The variable is there before torch, whose OpenMP reads it, is imported."""
    code = """
import builtins, os
original, seen = builtins.__import__, []
def spy(name, *args, **kwargs):
    if name == 'torch' and not seen:
        seen.append(os.environ.get('GOMP_SPINCOUNT'))
    return original(name, *args, **kwargs)
builtins.__import__ = spy
import manpp_mm.commands
print(seen)
"""
    kept = {key: value for key, value in os.environ.items() if key not in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], cwd=ROOT, env=kept | own, capture_output=True, text=True
    )
    assert done.stdout.strip().splitlines()[-1] == str([found]), done.stderr
