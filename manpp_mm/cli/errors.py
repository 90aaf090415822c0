"""One-line error messages for the tools."""

import argparse
import sys
from collections.abc import Callable
from urllib.error import URLError

import torch

FLAG = '--traceback'


def add_traceback_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--traceback``."""
    parser.add_argument(FLAG, action='store_true', help='show where in the code an error was raised')


def run(main: Callable[[], None]) -> None:
    """Run a tool; an error ends it with one line and exit status 1. ``--traceback`` shows the traceback."""
    try:
        main()
    except Exception as error:
        if FLAG in sys.argv:
            raise
        sys.exit(f'error: {in_a_line(error)}')


def in_a_line(error: Exception) -> str:
    """Return the message of an error in one line, with a fix for common errors."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, torch.OutOfMemoryError):
        return f'{lines[0]} Train with --memory auto, or use smaller images or a smaller batch'
    if lines and lines[0].startswith('Caught ') and 'worker process' in lines[0]:
        return f'in a loader worker: {lines[-1]}'
    words = ' '.join(lines)
    if isinstance(error, URLError):
        return f'{words}: a file could not be fetched; without a network, set its config key to a local file'
    if isinstance(error, (ValueError, OSError, RuntimeError)) and words:
        return words
    return f'{type(error).__name__}: {words} ({FLAG} shows where)'
