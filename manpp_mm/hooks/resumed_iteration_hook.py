"""Iterations of a training that is resumed with another batch size."""

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner


class ResumedIterationHook(Hook):
    """Counts the iterations of whole epochs anew, so that the log's remaining time is that of the new batch size.

    MMEngine takes the count from the checkpoint; with larger batches it can exceed what the whole training needs.
    """

    priority = 'VERY_HIGH'  # before MMEngine's timer remembers where it starts

    def before_train(self, runner: Runner) -> None:
        """Set the training loop's iteration."""
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            loop._iter = loop.epoch * len(loop.dataloader)
