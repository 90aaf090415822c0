"""A hook for trainings that resume with another batch size."""

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner


class ResumedIterationHook(Hook):
    """Recomputes the iteration from the epoch, so that the remaining time in the log fits the new batch size.

    MMEngine takes the count from the checkpoint; with larger batches, it can exceed the length of the training.
    """

    priority = 'VERY_HIGH'  # before MMEngine's timer stores its start

    def before_train(self, runner: Runner) -> None:
        """Set the training loop's iteration."""
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            loop._iter = loop.epoch * len(loop.dataloader)
