"""Seeds of the random number generators of Python, NumPy and PyTorch."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.runner import set_random_seed


def seed_everything(*entropy: int) -> None:
    """Seed Python, NumPy and PyTorch (all devices) from several non-negative integers."""
    set_random_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


@contextmanager
def kept_generators() -> Iterator[None]:
    """Restore the CPU's generators afterwards, so that the data do not depend on the numbers drawn inside."""
    # MMLab's transforms draw from NumPy's global generator.
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
