"""Combinations of packages that fail are named at import, with the way out."""

import sys
from importlib.metadata import PackageNotFoundError

import pytest
from processes import execute

from manpp_mm.compat import versions

TESTED = {
    'torch': '2.14.1', 'torchvision': '0.29.1', 'mmengine': '0.10.7', 'mmcv-lite': '2.1.0', 'mmdet': '3.3.0',
    'mmsegmentation': '1.2.2',
}  # fmt: skip
FORK = {
    'torch': '2.14.1', 'torchvision': '0.29.1', 'onedl-mmengine': '0.10.12', 'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1', 'onedl-mmsegmentation': '1.4.2',
}  # fmt: skip


def found(monkeypatch, packages, absent=(), needs='torch==2.14.1'):
    def version(name):
        if name not in packages:
            raise PackageNotFoundError(name)
        return packages[name]

    monkeypatch.setattr(versions, 'version', version)
    monkeypatch.setattr(versions, 'requires', lambda name: ['numpy', needs])
    monkeypatch.setattr(versions, 'find_spec', lambda name: None if name in absent else object())
    return versions.faults()


NEWER = {'mmengine': '0.11.0', 'mmdet': '4.0.0', 'mmsegmentation': '1.3.0', 'mmcv-lite': '2.3.0'}


@pytest.mark.parametrize('packages', [TESTED, FORK, TESTED | NEWER, TESTED | {'torch': '2.14.1+cu130'}])
def test_what_works_is_not_warned_of(monkeypatch, packages):
    assert found(monkeypatch, packages) == []


@pytest.mark.parametrize(
    ('change', 'absent', 'message'),
    [
        ({'mmcv-lite': '2.2.0'}, (), 'refuse mmcv 2.2.0: .*pip install mmcv-lite==2.1.0'),
        ({'mmcv': '2.1.0'}, (), 'mmcv and mmcv-lite install the same module: pip uninstall mmcv mmcv-lite'),
        ({'onedl-mmdetection': '3.5.1'}, (), 'mmdet and onedl-mmdetection install the same module'),
        ({'mmdet': '3.0.0'}, (), 'mmdet 3.0.0 is older than 3.3.0: pip install -r requirements.txt'),
        ({'torch': '2.13.0'}, (), 'torchvision 0.29.1 is built for torch 2.14.1, but torch is 2.13.0'),
        ({'torch': '2.14.1+cpu'}, (), 'one of torch and torchvision is a CPU build'),
        ({}, ('pkg_resources',), 'pip install "setuptools<80.9"'),
        ({}, ('ftfy',), 'imports ftfy but does not require it: pip install ftfy regex'),
    ],
)
def test_each_fault_has_a_way_out(monkeypatch, change, absent, message):
    with pytest.warns(UserWarning, match=message) as caught:
        assert len(found(monkeypatch, TESTED | change, absent)) == 1
        versions.check()
    assert len(caught) == 1


def test_several_faults_are_one_warning(monkeypatch):
    assert len(found(monkeypatch, TESTED | {'mmcv-lite': '2.2.0', 'mmengine': '0.9.0'}, ('regex',))) == 3
    with pytest.warns(UserWarning) as caught:
        versions.check()
    assert len(caught) == 1


@pytest.mark.slow
def test_the_packages_here_pass():
    done = execute(
        sys.executable, '-W', 'error:manpp_mm', '-c', 'import manpp_mm; print("imported")', PYTHONWARNINGS=''
    )
    assert done.stdout.strip().endswith('imported'), done.stderr[-2000:]
