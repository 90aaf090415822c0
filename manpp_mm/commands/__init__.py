"""The commands of ``manpp``. ``tools/`` holds a script for each, for use from a checkout or through MIM."""

import sys
from difflib import get_close_matches
from importlib import import_module

from ..cli import errors
from ..version import __version__

COMMANDS = dict(
    train='train a detector, segmentor or classifier',
    split_train='train the blocks of a model in several processes',
    test='evaluate a checkpoint',
    fit='show the memory that each way to train a config needs, and write the config that fits',
    check="check a config's data and summarize what training would use",
    publish='write the plain model from a checkpoint',
    infer='run a checkpoint on an image or a folder',
    compare='train variants of a config under equal conditions and compare their accuracy',
    benchmark='measure memory, work and time of a step',
    plot_log='plot block losses and scaling biases of a training run',
)


def main() -> None:
    """Run ``manpp COMMAND ...``; also ``python -m manpp_mm COMMAND ...``."""
    name, *rest = sys.argv[1:] or ['--help']
    if name in ('-h', '--help'):
        print(_help())
        return
    if name in ('-V', '--version'):
        print(__version__)
        return
    command = name.replace('-', '_')
    if command not in COMMANDS:
        close = get_close_matches(name, [each.replace('_', '-') for each in COMMANDS], 1)
        hint = f': did you mean {close[0]!r}?' if close else ''
        print(f'{_help()}\n\nerror: manpp has no command {name!r}{hint}', file=sys.stderr)
        sys.exit(2)
    module = import_module(f'.{command}', __name__)
    sys.argv = [f'manpp {name}', *rest]  # argparse prints argv[0], and errors.run looks for --traceback
    errors.run(module.main)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f'  {name.replace("_", "-"):<{width}}  {words}' for name, words in COMMANDS.items()]
    return '\n'.join(
        ['usage: manpp COMMAND [options]', '', *lines, '', 'manpp COMMAND --help lists the options of a command.']
    )
