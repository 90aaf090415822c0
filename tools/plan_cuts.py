"""Plan where to cut a backbone: the fewest blocks within a memory budget, or for about the lowest peak.

python tools/plan_cuts.py configs/deeplabv3_r101_manpp_cityscapes.py --memory 6GiB
"""

import argparse

from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger

import manpp_mm  # noqa: F401
from manpp_mm.memory import choose
from manpp_mm.memory.inputs import training_input
from manpp_mm.memory.report import choice_table


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a block-local detector or segmentor')
    parser.add_argument(
        '--memory',
        help="budget for parameters, optimizer state, inputs and the step's peak: '6GiB'; default the config's "
        'memory_budget, without one the fewest blocks within 2 %% of the lowest peak',
    )
    parser.add_argument(
        '--input', nargs=3, type=int, metavar=('N', 'H', 'W'), help="images, height, width; default the config's"
    )
    parser.add_argument(
        '--batch-size',
        choices=['auto'],
        help='find the largest batch that fits the budget for each way to train, with the cuts planned without one',
    )
    parser.add_argument('--keep-cuts', action='store_true', help="do not plan, take the config's own cuts")
    parser.add_argument('--plan-only', action='store_true', help='do not measure other ways to train')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override config keys: key=value ...')
    args = parser.parse_args()
    if args.batch_size and not args.memory:
        parser.error('--batch-size auto needs --memory')
    if args.keep_cuts and args.plan_only:
        parser.error('--keep-cuts plans nothing, --plan-only nothing else')
    return args


def main() -> None:
    args = parse_args()
    config = Config.fromfile(args.config)
    if args.cfg_options is not None:
        config.merge_from_dict(args.cfg_options)
    MMLogger.get_instance('mmengine', log_level='WARNING')
    budget = choose.parse_size(args.memory) if args.memory else choose.budget_of(config)
    batch, size = (args.input[0], tuple(args.input[1:])) if args.input else training_input(config)
    print(f'{args.config}, {batch} images of {size[0]}x{size[1]}, float32, predicted from small images\n')
    if args.keep_cuts:
        print(f"the config's own cuts: {choose.own_cuts(config)}")
    else:
        found, static = choose.planned(config, batch, size, None if args.batch_size else budget)
        print(found.table(static))
        choose.apply_cuts(config, found.cuts)
    if not args.plan_only:
        within = budget if args.batch_size else None
        print(f'\n{choice_table(choose.choices(config, batch, size, within), budget)}')
        print('total: with parameters, optimizer state and inputs; ratio: of peaks; work: floating-point operations')


if __name__ == '__main__':
    main()
