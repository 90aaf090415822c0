"""The hook that trains a process's share of the local blocks."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import nan
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, Runner
from torch import Tensor

from ..backbones import unwrapped
from ..hooks import LocalLearningHook, MomentumHook
from ..hooks.trunk_optimizer import loss_scale, optim_wrapper_of
from ..local import BlockOutput
from ..memory.live_bytes import LiveBytes
from ..random_numbers import kept_generators
from ..step import Step
from .batches import ReceivedBatches
from .messages import BATCH, NEWS, PARAMETERS, STATE, Inbox, Message, Messenger, Outbox
from .share import Share, last_blocks
from .timeline import Held, Span


@dataclass
class Settings:
    """How a training is split.

    Attributes:
        division: The local blocks of each process.
        ahead: The number of batches that wait at a process at most.
        delay: The number of steps by which momentum branches follow units of other processes late.
        used: The stages whose maps reach the task's loss; of other maps, only the shape is sent. None for all.
        measure: Whether each process records when it works, and in its third step the bytes that it holds.
    """

    division: Sequence[range]
    ahead: int
    delay: int
    used: 'frozenset[int] | None' = None
    measure: bool = False


class SplitHook(Hook):
    """Trains one process's share of the local blocks.

    Process p takes a batch's features from process p - 1, trains its blocks, passes its own features on and goes on
    with the next batch. The first process loads the data. The last one holds the last block, neck and heads, logs,
    validates and saves checkpoints; for that, the others send it their values after the same iteration.

    Args:
        messenger: Connects the processes.
        settings: How the training is split.
    """

    priority = 'LOW'  # after the hooks that need the whole model at the start, before checkpoints

    def __init__(self, messenger: Messenger, settings: Settings) -> None:
        self.messenger = messenger
        self.settings = settings
        self.number = messenger.rank
        self.last = messenger.size - 1
        self.spans: list[Span] = []
        """With ``measure``: when this process, and at the end of training every one, worked on which batch."""
        self.held: list[Held] = []
        """With ``measure``: the bytes that this process, and at the end of training every one, held."""

    def before_train(self, runner: Runner) -> None:
        """Free what other processes train, and replace data loader, training step and the saving of checkpoints."""
        model = unwrapped(runner.model)
        if type(model).train_step is not BaseModel.train_step:
            raise ValueError(f'{type(model).__name__} has a train_step of its own, which cannot be split')
        wrapper = optim_wrapper_of(runner.optim_wrapper, model, 'the model')
        self.share = Share(model, wrapper.optimizer, self.settings.division, self.number)
        self.step = _SplitStep(self, runner, model)
        self.share.keep_own()
        model.train_step = self.step
        if self.number < self.last:
            # A resumed run knows the best checkpoint so far. Only the last process replaces it.
            info = runner.message_hub.runtime_info
            for name in [name for name in info if name.startswith('best_ckpt')]:
                info.pop(name)
        if self.number > 0:
            loop = runner.train_loop
            loop.dataloader = ReceivedBatches(loop.dataloader, self.step.inbox, skipped=runner.iter)
            if hasattr(loop, 'dataloader_iterator'):
                loop.dataloader_iterator = loop.dataloader
        save = runner.save_checkpoint

        def save_whole(*args: Any, **kwargs: Any) -> None:
            self.gather()
            if self.number == self.last:
                save(*args, **kwargs)
                self.share.keep_own()

        runner.save_checkpoint = save_whole

    def before_val(self, runner: Runner) -> None:
        """Make the model whole."""
        self.gather()

    def after_val_epoch(self, runner: Runner, metrics: 'dict | None' = None) -> None:
        """Send the metrics to the other processes, whose hooks and schedules may read them."""
        if self.number == self.last:
            self._tell(metrics)

    def after_val(self, runner: Runner) -> None:
        """Free what other processes train."""
        if self.number == self.last:
            self.share.keep_own()

    def after_train(self, runner: Runner) -> None:
        """Make the model of the last process whole, and end together."""
        del unwrapped(runner.model).train_step, runner.save_checkpoint
        self.gather()
        if self.number == self.last:
            for process in self._others():
                spans, held = self._heard(process)
                self.spans += spans
                self.held += held
            self._tell('done')
        else:
            self.messenger.send(Message((self.spans, self.held), []), self.last, NEWS)
            self.news()

    def gather(self) -> None:
        """Let the last process take over the values of all others; they wait until it has reached this iteration."""
        self.step.flush()
        if self.number == self.last:
            self.share.fill([self.messenger.receive(p, STATE).content for p in self._others()])
        else:
            self.messenger.send(Message(self.share.own_state(), []), self.last, STATE)

    def news(self) -> Any:
        """Wait for what the last process tells."""
        return self._heard(self.last)

    def _heard(self, process: int) -> Any:
        return self.messenger.receive(process, NEWS).content

    def _tell(self, content: Any) -> None:
        for process in self._others():
            self.messenger.send(Message(content, []), process, NEWS)

    def _others(self) -> range:
        return range(self.last)


class _SplitStep:
    """Takes the place of ``model.train_step``."""

    def __init__(self, hook: SplitHook, runner: Runner, model: BaseModel) -> None:
        self.hook = hook
        self.runner = runner
        self.model = model
        self.backbone = hook.share.backbone
        messenger, settings = hook.messenger, hook.settings
        self.blocks = settings.division[hook.number]
        self.first = hook.number == 0
        self.last = hook.number == hook.last
        own = next(each for each in runner.hooks if isinstance(each, LocalLearningHook))
        self.seeded = own.seed_blocks
        self.used = settings.used
        rebuilt = [network.reconstruction is not None for network in self.backbone.auxiliary]
        self.receives_images = any(rebuilt[self.blocks.start :])
        self.sends_images = any(rebuilt[self.blocks.stop :])
        self.scalars = _BlockScalars(runner)
        self.steps = self.sent = self.received = 0
        if not self.first:
            self.inbox = Inbox(messenger, hook.number - 1, BATCH, settings.ahead)
        if not self.last:
            self.outbox = Outbox(messenger, hook.number + 1, BATCH)
        before = any(isinstance(each, MomentumHook) and each.before_step for each in runner.hooks)
        self.followed = [
            _Followed(Inbox(messenger, owner, PARAMETERS, None), parameters, settings.delay + before)
            for owner, parameters in hook.share.followed(hook.number).items()
        ]
        self.followers = [
            (Outbox(messenger, process, PARAMETERS), found[hook.number])
            for process in range(hook.number)
            if hook.number in (found := hook.share.followed(process))
        ]

    def __call__(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Train this process's blocks on a batch; the last process returns the losses of all."""
        self.steps += 1
        if not self.hook.settings.measure or self.steps != 3:
            return self._step(data, optim_wrapper)
        with LiveBytes(self.hook.share.values()) as live:
            logs = self._step(data, optim_wrapper)
        waiting = self.hook.settings.ahead * self.received + self.sent
        waiting += sum((each.delay + 1) * p.nbytes for each in self.followed for p in each.parameters)
        state = sum(value.nbytes for value in self.hook.share.values())
        self.hook.held.append(Held(self.hook.number, live.peak + self.received, waiting, state))
        return logs

    def flush(self) -> None:
        """Wait until all that was sent has been received."""
        for outbox in [*([] if self.last else [self.outbox]), *(outbox for outbox, _ in self.followers)]:
            outbox.flush()

    def _worked(self, start: float) -> None:
        """Record the time since ``start``, before waiting for another process."""
        if self.hook.settings.measure:
            self.hook.spans.append(Span(self.hook.number, self.runner.iter, start, time.time()))

    def _step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        start = time.time()
        model = self.model
        with optim_wrapper.optim_context(model):
            if self.first:
                data = model.data_preprocessor(data, True)
                images = data.pop('inputs')
                given, earlier = BlockOutput(images, {}), _Earlier({}, {})
            else:
                data, images, given, earlier = self._unpacked(data)
            if self.last:
                with last_blocks(self.backbone, self.blocks, given):
                    losses = model(images, **data, mode='loss')
            else:
                losses, output = self._local(data, images, given, optim_wrapper)
        parsed, logs = model.parse_losses(losses)
        del losses
        if not self.last:
            earlier.add(logs, self.scalars.new(logs))
            message = self._packed(data, images, output, earlier)
            self._worked(start)
            self.outbox.put(message)
            start = time.time()
            del output, message
        del given, images, data
        if self.followed:
            self._worked(start)
            for each in self.followed:
                each.refresh()
            start = time.time()
        optim_wrapper.update_params(parsed)
        self._worked(start)
        for outbox, parameters in self.followers:
            outbox.put(Message(None, [torch.cat([p.detach().reshape(-1) for p in parameters])]))
        if self.last:
            self.runner.message_hub.update_scalars(earlier.scalars)
            logs['loss'] = logs['loss'] + earlier.losses.pop('loss', 0.0)
            logs.update(earlier.losses)
        return logs

    def _local(
        self, data: dict, images: Tensor, given: BlockOutput, optim_wrapper: OptimWrapper
    ) -> tuple[dict[str, Tensor], BlockOutput]:
        scale = loss_scale(getattr(optim_wrapper, 'loss_scaler', None), images.device)
        seed = (self.runner.seed, self.runner.iter) if self.seeded else None
        step = Step(data.get('data_samples'), scale, seed)
        with kept_generators() if self.seeded else nullcontext():
            output = self.backbone.train_blocks(self.blocks, given, images, step)
        return step.delivered_losses(), output

    def _packed(self, data: dict, images: Tensor, output: BlockOutput, earlier: '_Earlier') -> Message:
        data = {key: [sample.to('cpu') for sample in value] for key, value in data.items()}
        tensors = [output.x]
        stages: dict[int, Any] = {}
        for stage, found in output.features.items():
            if found is output.x:
                stages[stage] = 0
            elif self.used is not None and stage not in self.used:
                stages[stage] = tuple(found.shape)
            else:
                stages[stage] = len(tensors)
                tensors.append(found)
        if self.sends_images:
            tensors.append(images)
        self.sent = sum(tensor.nbytes for tensor in tensors)
        return Message((data, tuple(images.shape), images.dtype, stages, earlier), tensors)

    def _unpacked(self, message: Message) -> 'tuple[dict, Tensor, BlockOutput, _Earlier]':
        data, shape, dtype, stages, earlier = message.content
        tensors = [*message.tensors]
        message.tensors.clear()  # the training loop holds the message until the next one arrives
        self.received = sum(tensor.nbytes for tensor in tensors)
        x = tensors[0]
        features = {s: tensors[p] if isinstance(p, int) else x.new_full((), nan).expand(p) for s, p in stages.items()}
        # Where no reconstruction needs the images, only their shape matters; a loss that reads them becomes NaN.
        images = tensors[-1] if self.receives_images else x.new_full((), nan, dtype=dtype).expand(shape)
        data = {key: [sample.to(x.device) for sample in value] for key, value in data.items()}
        return data, images, BlockOutput(x, features), earlier


@dataclass
class _Earlier:
    """Logged values of the processes before: losses of this iteration, with their sum, and scalars of the last one."""

    losses: dict[str, float]
    scalars: dict[str, float]

    def add(self, logs: dict[str, Tensor], scalars: dict[str, float]) -> None:
        own = dict(zip(logs, torch.stack([*logs.values()]).tolist(), strict=True))
        own['loss'] += self.losses.get('loss', 0.0)
        self.losses |= own
        self.scalars |= scalars


class _BlockScalars:
    """The scalars of blocks that hooks have logged since the last call, such as norms and scaling biases."""

    def __init__(self, runner: Runner) -> None:
        self.hub = runner.message_hub
        self.lengths = {name: self._length(name) for name in self.hub.log_scalars}

    def new(self, logs: dict[str, Any]) -> dict[str, float]:
        """Return the new values, without those of ``logs``, which the Runner logs itself."""
        found = {}
        for name, buffer in self.hub.log_scalars.items():
            if name.startswith('train/block') and name.removeprefix('train/') not in logs:
                if self.lengths.get(name) != self._length(name):
                    found[name] = float(buffer.current())
                self.lengths[name] = self._length(name)
        return found

    def _length(self, name: str) -> int:
        return int(self.hub.log_scalars[name].data[1].sum())


class _Followed:
    """The parameters of another process that momentum branches of this one follow."""

    def __init__(self, inbox: Inbox, parameters: Sequence[Tensor], delay: int) -> None:
        self.inbox = inbox
        self.parameters = parameters
        self.delay = delay

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the parameters after the step ``delay`` before this one; at the start, keep the initial ones."""
        if self.delay > 0:
            self.delay -= 1
            return
        (flat,) = self.inbox.get().tensors
        pieces = flat.split([p.numel() for p in self.parameters])
        for parameter, piece in zip(self.parameters, pieces, strict=True):
            parameter.copy_(piece.view_as(parameter))


@LOOPS.register_module()
class AwaitedValLoop(BaseLoop):
    """The validation of a process other than the last: it waits for the last one's metrics.

    Args:
        runner: The runner, which has a :class:`SplitHook`.
        kwargs: Arguments of the validation loop of the last process; not used.
    """

    def __init__(self, runner: Runner, **kwargs: Any) -> None:
        self._runner = runner
        self.dataloader: Any = []  # the logger asks for its length

    def run(self) -> Any:
        """Wait for the metrics and run the hooks that follow a validation."""
        self._runner.call_hook('before_val')
        hook = next(hook for hook in self._runner.hooks if isinstance(hook, SplitHook))
        metrics = hook.news()
        self._runner.call_hook('after_val_epoch', metrics=metrics)
        self._runner.call_hook('after_val')
        return metrics
