"""The checks that each tool runs."""

from mmengine.config import Config

from ..checkpoint_file import check_whole
from ..checks import check_everything, check_resume
from ..checks.loaders import check_shared_memory
from ..checks.schedule import check_schedule
from ..checks.weights import check_weights
from .runner import first_process


def before_training(config: Config, resumed: 'str | None') -> list[str]:
    """Check the inputs of a training, in the first process of a launcher.

    Args:
        config: The config.
        resumed: The checkpoint to resume from.

    Returns:
        Warnings for the log.

    Raises:
        ValueError, FileNotFoundError, RuntimeError: See the checks.
    """
    if not first_process(config):
        return []
    if resumed is None:
        check_weights(config)
    elif '://' not in resumed:
        check_whole(resumed, config.work_dir)
    check_shared_memory(config)
    return [*check_schedule(config), *check_everything(config, 'train', 'val').warnings]


def before_resuming(config: Config, resumed: str) -> list[str]:
    """Compare a fitted config with the checkpoint to resume from; see :func:`before_training`."""
    return check_resume(config, resumed) if first_process(config) and '://' not in resumed else []


def before_testing(config: Config) -> list[str]:
    """Check the inputs of a test; see :func:`before_training`."""
    return check_everything(config, 'test').warnings if first_process(config) else []
