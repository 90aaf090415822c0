"""Memory budgets and sizes."""

import re

import torch

RESERVE = 0.1
"""Fraction of a budget left as headroom for memory outside tensors: convolution workspaces, fragmentation."""

AUTO = 'auto'
"""The name of the budget that equals the free memory of the device."""

_UNITS = {'': 1, 'K': 10**3, 'M': 10**6, 'G': 10**9, 'T': 10**12, 'KI': 2**10, 'MI': 2**20, 'GI': 2**30, 'TI': 2**40}


def parse_size(text: 'str | int | float') -> int:
    """Parse a size such as ``'6GiB'`` or ``'6.5 GB'`` to bytes; an integer is a number of bytes.

    Raises:
        ValueError: It is not a size, or a string without a unit.
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
    """Return the bytes of a budget: a size, or the free memory of the device for ``'auto'``; None for None.

    Raises:
        ValueError: It is not a size, or ``'auto'`` without a GPU.
    """
    if memory is None:
        return None
    if memory != AUTO:
        return parse_size(memory)
    if not torch.cuda.is_available():
        raise ValueError("memory 'auto' uses the free memory of the GPU, but there is no GPU: give a size such as 6GiB")
    return torch.cuda.mem_get_info()[0]


def room_in(budget: int | None) -> int | None:
    """Return the part of a budget that tensors may use."""
    return None if budget is None else int(budget * (1 - RESERVE))
