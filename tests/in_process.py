"""The commands of ``manpp`` in this process, which has imported everything already."""

import gc
import logging
from importlib import import_module

from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.utils.manager import ManagerMixin

TOOLS = dict(publish_model='publish', image_demo='infer', check_data='check')
"""Tools whose command has another name."""


def command(tool: str, *argv: object) -> None:
    """Run ``tools/TOOL.py ARGV`` as a fresh process would: without what MMEngine keeps of an earlier Runner."""
    forget_runners()
    try:
        import_module(f'manpp_mm.commands.{TOOLS.get(tool, tool)}').main([str(part) for part in argv])
    finally:
        forget_runners()


def forget_runners() -> None:
    """Forget the loggers, message hubs, visualizers and scopes that MMEngine keeps by name."""
    for logger in MMLogger._instance_dict.values():
        for handler in list(logger.handlers):
            if isinstance(handler, logging.FileHandler):
                handler.close()
                logger.removeHandler(handler)
    for kind in (MMLogger, MessageHub, DefaultScope, *_visualizers(ManagerMixin)):
        kind._instance_dict.clear()
    gc.collect()  # their models are held in circles


def _visualizers(kind: type) -> list[type]:
    found = [each for each in kind.__subclasses__() if 'Visualizer' in each.__name__]
    return found + [deeper for each in found for deeper in _visualizers(each)]
