"""``manpp_mm::`` and, on packages whose name MMEngine does not know, ``mmdet::`` and ``mmseg::`` in ``_base_``.

MMEngine resolves prefixes through a fixed table from module to installed package. The maintained fork installs the
same modules under other package names, and this project is not in the table.
"""

import os.path as osp
from importlib.util import find_spec

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import is_installed

OWN = 'manpp_mm'


def config_folder(module: str) -> str:
    """Return the folder that holds a package's configs: inside an installed package, or beside it in a checkout."""
    package = osp.dirname(find_spec(module).origin)
    folders = [osp.join(package, '.mim', 'configs'), osp.join(osp.dirname(package), 'configs')]
    for folder in folders:
        if osp.isdir(folder):
            return folder
    raise FileNotFoundError(f'{module} is installed without its configs; looked in {" and ".join(folders)}')


def apply() -> None:
    """Teach ``Config`` the prefixes; ``_base_`` entries that MMEngine resolves itself are left to it."""
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
        # This project registers into other packages' registries: its dicts carry no scope of their own.
        return path, None if module == OWN else module

    _get_cfg_path.manpp_mm = True
    Config._get_cfg_path = staticmethod(_get_cfg_path)


def _unknown_to_mmengine(module: str) -> bool:
    return module in ('mmdet', 'mmseg') and not is_installed(MODULE2PACKAGE[module]) and find_spec(module) is not None
