"""A warning at import about combinations of packages that are known to fail, each with a fix."""

import re
import warnings
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

_ONE_MODULE = (
    ('mmengine', 'onedl-mmengine'),
    ('mmcv', 'mmcv-lite', 'onedl-mmcv'),
    ('mmdet', 'onedl-mmdetection'),
    ('mmsegmentation', 'onedl-mmsegmentation'),
    ('mmpretrain', 'onedl-mmpretrain'),
)
"""Packages that install the same module."""
_REFUSE_MMCV_2_2 = {'mmdet': (3, 3, 0), 'mmsegmentation': (1, 2, 2)}
_OLDEST = {
    'mmengine': (0, 10, 0),
    'mmcv': (2, 1, 0),
    'mmdet': (3, 3, 0),
    'mmsegmentation': (1, 2, 2),
    'mmpretrain': (1, 2, 0),
}


def check() -> None:
    """Warn once about all problems found."""
    found = faults()
    if found:
        warnings.warn(
            'manpp_mm: this combination of packages is known to fail (see docs/troubleshooting.md):\n'
            + '\n'.join(f'- {fault}' for fault in found),
            stacklevel=2,
        )


def faults() -> list[str]:
    """Return known problems of the installed packages, each with a fix; a newer version alone is not a problem."""
    found = []
    for packages in _ONE_MODULE:
        present = [name for name in packages if installed(name)]
        if len(present) > 1:
            words = ' and '.join(present)
            found.append(f'{words} install the same module: pip uninstall {" ".join(present)}, then install one')
    if installed('mmengine') and find_spec('pkg_resources') is None:
        found.append('mmengine imports pkg_resources, which setuptools 82 removed: pip install "setuptools<80.9"')
    if find_spec('mmseg') is not None:
        missing = [name for name in ('ftfy', 'regex') if find_spec(name) is None]
        if missing:
            found.append(
                f'mmsegmentation imports {" and ".join(missing)} but does not require it: pip install ftfy regex'
            )
    mmcv = installed('mmcv', 'mmcv-lite')
    refuse = [name for name, last in _REFUSE_MMCV_2_2.items() if (own := installed(name)) and own <= last]
    if mmcv and mmcv >= (2, 2, 0) and refuse:
        found.append(
            f'{" and ".join(refuse)} refuse mmcv {_text(mmcv)}: pip uninstall mmcv mmcv-lite, then '
            'pip install mmcv-lite==2.1.0 (or a compiled mmcv 2.1.0)'
        )
    for name, oldest in _OLDEST.items():
        own = mmcv if name == 'mmcv' else installed(name)
        if own and own < oldest:
            found.append(f'{name} {_text(own)} is older than {_text(oldest)}: pip install -r requirements.txt')
    torch, wanted = installed('torch'), _torch_of_torchvision()
    if torch and wanted and torch != wanted:
        found.append(
            f'torchvision {version("torchvision")} is built for torch {_text(wanted)}, but torch is {_text(torch)}: '
            'install a matching pair'
        )
    if torch and wanted and version('torch').endswith('+cpu') != version('torchvision').endswith('+cpu'):
        found.append('only one of torch and torchvision is a CPU build: install both from the same index')
    return found


def installed(*packages: str) -> tuple[int, ...] | None:
    """Return the version of the first of these packages that is installed."""
    for package in packages:
        try:
            return _numbers(version(package))
        except PackageNotFoundError:
            continue
    return None


def _torch_of_torchvision() -> tuple[int, ...] | None:
    try:
        needs = requires('torchvision') or []
    except PackageNotFoundError:
        return None
    found = next((match for need in needs if (match := re.match(r'torch\s*\(?==\s*([\d.]+)', need))), None)
    return _numbers(found[1]) if found else None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r'\d+', text.partition('+')[0])[:3])


def _text(numbers: tuple[int, ...]) -> str:
    return '.'.join(map(str, numbers))
