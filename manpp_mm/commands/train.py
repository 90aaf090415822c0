"""Train a detector, segmentor or classifier.

manpp train mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py --memory 8GiB
manpp train configs/faster_rcnn_r50_manpp_coco.py
"""

import argparse
from collections.abc import Sequence

from mmengine.config import Config

from ..checkpoint_file import check_load_from
from ..checks.files import check_crop
from ..cli import arguments, checking
from ..cli import runner as running
from ..memory.fit import check_request


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_config_argument(parser)
    arguments.add_training_arguments(parser)
    arguments.add_check_argument(parser)
    arguments.add_fitting_arguments(parser)
    arguments.add_common_arguments(parser)
    return parser.parse_args(argv)


def prepared(args: argparse.Namespace) -> tuple[Config, str, list[str]]:
    """Return the config to train, a log entry about its memory ('' for none), and warnings."""
    config = arguments.load_config(args)
    arguments.apply_training_arguments(config, args)
    check_request(config, None if args.resume is not None else args.method)
    resumed = running.checkpoint_to_resume(config)
    warnings = [] if args.no_check else checking.before_training(config, resumed)
    check_crop(config)
    config, words = running.prepare(config, resumed, predict=True, memory=args.memory, method=args.method)
    if resumed is not None and not args.no_check:
        warnings += checking.before_resuming(config, resumed)
    return config, words, warnings


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    config, words, warnings = prepared(args)
    runner = running.build_runner(config)
    if config.get('load_from') and not config.get('resume') and '://' not in config.load_from and not args.no_check:
        check_load_from(runner.model, config.load_from)
    if words:
        runner.logger.info(words)
    for warning in warnings:
        runner.logger.warning(warning)
    running.train(runner)
