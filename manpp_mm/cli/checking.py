"""When the tools check what."""

from mmengine.config import Config

from ..checkpoint_file import check_whole
from ..checks import check_everything, check_resume
from ..checks.loaders import check_shared_memory
from ..checks.schedule import check_schedule
from ..checks.weights import check_weights
from .runner import first_process


def before_training(config: Config, resumed: 'str | None') -> list[str]:
    """Check what a training reads, in a launcher's first process.

    Args:
        config: The config.
        resumed: The checkpoint that it goes on from.

    Returns:
        Warnings for the log.

    Raises:
        ValueError, FileNotFoundError, RuntimeError: See the checks.
    """
    if not first_process(config):
        return []
    warnings = []
    if resumed is not None and '://' not in resumed:
        check_whole(resumed, config.work_dir)
        warnings += check_resume(config, resumed)
    else:
        check_weights(config)
    check_shared_memory(config)
    return [*warnings, *check_schedule(config), *check_everything(config, 'train', 'val').warnings]


def before_testing(config: Config) -> list[str]:
    """Check what a test reads; see :func:`before_training`."""
    return check_everything(config, 'test').warnings if first_process(config) else []
