"""How many bytes there are."""

import re

import torch

RESERVE = 0.1
"""What of a budget stays free for what no tensor holds: convolution workspaces, the allocator's fragments."""

AUTO = 'auto'
"""The budget that is what the device has free."""

_UNITS = {'': 1, 'K': 10**3, 'M': 10**6, 'G': 10**9, 'T': 10**12, 'KI': 2**10, 'MI': 2**20, 'GI': 2**30, 'TI': 2**40}


def parse_size(text: 'str | int | float') -> int:
    """Bytes of a size such as ``'6GiB'`` or ``'6.5 GB'``; an integer is a number of bytes.

    Raises:
        ValueError: It is not a size, or a text without a unit.
    """
    found = re.fullmatch(r'\s*(\d+(?:\.\d*)?)\s*([KMGT]I?)?(B?)\s*', str(text).upper())
    if found is None or float(found[1]) <= 0:
        raise ValueError(f'memory {text!r} is not a size: write 6GiB or 800MB')
    if isinstance(text, str) and not found[2] and not found[3]:
        number = text.strip()
        units = ('GiB', 'MB') if float(number) < 10_000 else ('B',)
        raise ValueError(f'memory {text!r} has no unit: write {" or ".join(number + unit for unit in units)}')
    return int(float(found[1]) * _UNITS[found[2] or ''])


def budget_bytes(memory: 'str | int | None') -> int | None:
    """Bytes of a budget: a size, what the device has free for ``'auto'``, None for None.

    Raises:
        ValueError: It is not a size, or ``'auto'`` without a GPU.
    """
    if memory is None:
        return None
    if memory != AUTO:
        return parse_size(memory)
    if not torch.cuda.is_available():
        raise ValueError("memory 'auto' is what the GPU has free, and there is no GPU: give a size, 6GiB say")
    return torch.cuda.mem_get_info()[0]


def room_in(budget: int | None) -> int | None:
    """What tensors may take of a budget."""
    return None if budget is None else int(budget * (1 - RESERVE))
