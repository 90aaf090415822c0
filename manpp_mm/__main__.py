"""``python -m manpp_mm COMMAND ...`` is ``manpp COMMAND ...``."""

from .commands import main

main()
