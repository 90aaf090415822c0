import pytest
import torch

import manpp_mm  # noqa: F401


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)
