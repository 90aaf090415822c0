"""The prefix ``manpp_mm::`` in ``_base_``, and ``mmdet::`` and ``mmseg::`` for packages that MMEngine does not know.

MMEngine resolves prefixes through a fixed table from module to installed package. The maintained fork installs the same
modules under other package names, and this project is not in the table. MMEngine resolves prefixes only in ``_base_``;
:func:`read_config` also accepts them in the name of a config.
"""

import os.path as osp
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import is_installed

OWN = 'manpp_mm'
PREFIXES = ('mmdet', 'mmseg', 'mmpretrain', OWN)
"""Packages whose configs can be named on a command line: ``mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py``."""


def read_config(name: 'str | Path') -> Config:
    """Read a config.

    Args:
        name: A file, or a config of a package: ``mmdet::``, ``mmseg::``, ``mmpretrain::`` or ``manpp_mm::`` and the
            path in its config folder.

    Raises:
        FileNotFoundError: The config does not exist; the message suggests one with the same or a similar name.
        ValueError: The prefix is unknown, or its package is not installed.
    """
    module, separator, relative = str(name).partition('::')
    if not separator:
        if not osp.isfile(name):
            raise FileNotFoundError(
                f'there is no config {name}; for a config of a package, start with its name: mmdet::...'
            )
        return Config.fromfile(name)
    if module not in PREFIXES:
        raise ValueError(
            f'{name}: unknown prefix {module!r}, use one of {", ".join(f"{prefix}::" for prefix in PREFIXES)}'
        )
    if find_spec(module) is None:
        raise ValueError(f'{name}: {module} is not installed')
    folder = Path(config_folder(module))
    if not (folder / relative).is_file():
        known = sorted(str(path.relative_to(folder)) for path in folder.rglob('*.py'))
        elsewhere = [path for path in known if osp.basename(path) == osp.basename(relative)]
        close = elsewhere[:1] or get_close_matches(relative, known, 1)
        hint = f'did you mean {module}::{close[0]}?' if close else f'its configs are in {folder}'
        raise FileNotFoundError(f'{name}: {module} has no such config; {hint}')
    return Config.fromfile(folder / relative)


def config_folder(module: str) -> str:
    """Return the config folder of a package: inside an installed package, or next to it in a checkout."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None  # callers pass only installed packages
    package = osp.dirname(spec.origin)
    folders = [osp.join(package, '.mim', 'configs'), osp.join(osp.dirname(package), 'configs')]
    for folder in folders:
        if osp.isdir(folder):
            return folder
    raise FileNotFoundError(f'{module} is installed without its configs; searched {" and ".join(folders)}')


def apply() -> None:
    """Make ``Config`` resolve the prefixes; ``_base_`` entries that MMEngine resolves itself are left to it."""
    original = Config._get_cfg_path
    if getattr(original, 'manpp_mm', False):
        return

    def _get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        module, separator, relative = cfg_path.partition('::')
        if not separator or (module != OWN and not _unknown_to_mmengine(module)):
            return original(cfg_path, filename)
        path = osp.join(config_folder(module), relative)
        if not osp.isfile(path):
            raise FileNotFoundError(f'_base_ {cfg_path!r} in {filename}: {path} does not exist')
        # This project registers in other packages' registries, so its dicts have no scope of their own.
        return path, None if module == OWN else module

    _get_cfg_path.manpp_mm = True  # type: ignore[attr-defined]
    Config._get_cfg_path = staticmethod(_get_cfg_path)


def _unknown_to_mmengine(module: str) -> bool:
    return (
        module in ('mmdet', 'mmseg', 'mmpretrain')
        and not is_installed(MODULE2PACKAGE[module])
        and find_spec(module) is not None
    )
