"""The batches that a process of a split training receives in place of a data loader's."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from .messages import Inbox


class ReceivedBatches:
    """Stands in for the data loader, and for its endless iterator, in all processes but the first.

    Args:
        loader: The process's own loader, for its length and dataset; it loads nothing.
        inbox: Where the batches arrive.
        skipped: The number of batches that an iteration loop skips when it resumes; the first process skips them too,
            so they never arrive.
    """

    def __init__(self, loader: DataLoader, inbox: Inbox, skipped: int = 0) -> None:
        self.loader = loader
        self.inbox = inbox
        self.skipped = skipped

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return (self._next() for _ in range(len(self)))

    def __next__(self) -> Any:
        if self.skipped > 0:
            self.skipped -= 1
            return None
        return self._next()

    def _next(self) -> Any:
        return self.inbox.get()

    def skip_iter(self, num_iters: int) -> None:
        """Skip batches; the maintained fork's iteration loop calls this when it resumes."""
        self.skipped = 0
