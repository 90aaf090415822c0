"""Messages between the processes of a split training."""

import pickle
import queue
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

BATCH, PARAMETERS, STATE, NEWS = range(4)
"""Kinds of messages, each a channel of its own between two processes."""

_PATIENCE = timedelta(days=30)
"""A process may wait for a long validation; the end of a process shows at once, as its connections are closed."""


_CLOSED = ('closed', 'reset by peer', 'broken pipe', 'refused', 'ncclremoteerror')
"""What gloo and NCCL say if the other process has ended."""


class PeerLostError(RuntimeError):
    """Another process of the training has ended, or its machine cannot be reached."""


class Message(NamedTuple):
    """An object and tensors of any shapes and types."""

    content: Any
    tensors: list[Tensor]


class Messenger:
    """Point-to-point messages among a fixed number of processes.

    It holds process groups of its own. ``torch.distributed`` has no default group then, without which MMLab's samplers,
    losses and hooks would share their work between processes that do not compute the same.

    Args:
        store: The store at which the processes meet.
        rank, size: Number of this process and of all.
        device: The device of received tensors. Between GPUs, NCCL carries the tensors and gloo the rest.
    """

    def __init__(self, store: dist.Store, rank: int, size: int, device: torch.device) -> None:
        self.rank = rank
        self.size = size
        self.device = device
        self._gloo: Any = dist.ProcessGroupGloo(dist.PrefixStore('manpp/gloo', store), rank, size, timeout=_PATIENCE)
        self._groups: dict[int, Any] = {}
        if device.type == 'cuda':
            # NCCL has no tags: one group for each kind whose tensors it carries.
            for kind in (BATCH, PARAMETERS):
                options = dist.ProcessGroupNCCL.Options()
                prefixed = dist.PrefixStore(f'manpp/nccl{kind}', store)
                self._groups[kind] = dist.ProcessGroupNCCL(prefixed, rank, size, options)

    def send(self, message: Message, to: int, kind: int) -> None:
        """Send a message and return when it has been received.

        Raises:
            PeerLostError: The other process has ended.
        """
        dense = [_dense(tensor) for tensor in message.tensors]
        forms = [(tuple(flat.shape), flat.dtype, order) for flat, order in dense]
        header = torch.frombuffer(bytearray(pickle.dumps((message.content, forms))), dtype=torch.uint8)
        self._send(torch.tensor([header.numel()]), to, kind)
        self._send(header, to, kind)
        for flat, _ in dense:
            if flat.numel():
                self._send(flat.reshape(-1).view(torch.uint8), to, kind)

    def receive(self, source: int, kind: int) -> Message:
        """Wait for a message.

        Raises:
            PeerLostError: The other process has ended.
        """
        length = torch.zeros(1, dtype=torch.int64)
        self._receive(length, source, kind)
        header = torch.empty(int(length), dtype=torch.uint8)
        self._receive(header, source, kind)
        content, forms = pickle.loads(header.numpy().tobytes())
        tensors = []
        for shape, dtype, order in forms:
            flat = torch.empty(shape, dtype=dtype, device=self.device if kind in self._groups else 'cpu')
            if flat.numel():
                self._receive(flat.reshape(-1).view(torch.uint8), source, kind)
            tensors.append(flat.permute(_inverse(order)).to(self.device))
        return Message(content, tensors)

    def _group(self, tensor: Tensor, kind: int) -> Any:
        return self._groups[kind] if tensor.is_cuda else self._gloo

    def _send(self, tensor: Tensor, to: int, kind: int) -> None:
        _waited(lambda: self._group(tensor, kind).send([tensor], to, kind), tensor)

    def _receive(self, tensor: Tensor, source: int, kind: int) -> None:
        _waited(lambda: self._group(tensor, kind).recv([tensor], source, kind), tensor)


def _waited(start: Callable[[], Any], tensor: Tensor) -> None:
    try:
        start().wait()
        if tensor.is_cuda:
            torch.cuda.current_stream().synchronize()  # NCCL's own wait() returns before the tensor has arrived
    except RuntimeError as error:
        if any(word in str(error).lower() for word in _CLOSED):
            raise PeerLostError(f'another process has ended ({str(error).splitlines()[0]})') from error
        raise


def _dense(tensor: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Return a contiguous view (a copy, if the tensor has gaps) and the order of its dimensions, outermost first.

    The order is kept because an operator may round differently in another memory format.
    """
    strides = tensor.stride()
    order = tuple(sorted(range(tensor.dim()), key=lambda dim: (-strides[dim], dim)))
    return tensor.detach().permute(order).contiguous(), order


def _inverse(order: Sequence[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)


class _Channel(threading.Thread):
    """A thread that sends or receives; an error in it is raised in the main thread."""

    def __init__(self, messenger: Messenger, peer: int, kind: int) -> None:
        super().__init__(daemon=True)
        self.messenger = messenger
        self.peer = peer
        self.kind = kind
        self.error: BaseException | None = None
        self.stream = torch.cuda.Stream() if messenger.device.type == 'cuda' else None
        self.start()

    def run(self) -> None:
        """Send or receive until the process ends."""
        try:
            if self.stream is not None:
                torch.cuda.set_device(self.messenger.device)
            with torch.cuda.stream(self.stream):
                self.work()
        except BaseException as error:
            self.error = error
            self.wake()

    def work(self) -> None:
        """Send or receive."""
        raise TypeError(f'{type(self).__name__} must define work()')

    def wake(self) -> None:
        """Wake the main thread after an error."""
        raise TypeError(f'{type(self).__name__} must define wake()')


class Outbox(_Channel):
    """Sends messages in the background, one at a time.

    Args:
        messenger: The messenger.
        peer: The process to send to.
        kind: The kind of the messages.
    """

    def __init__(self, messenger: Messenger, peer: int, kind: int) -> None:
        self._idle = threading.Semaphore(1)
        self._queue: queue.SimpleQueue[tuple[Message, Any]] = queue.SimpleQueue()
        super().__init__(messenger, peer, kind)

    def put(self, message: Message) -> None:
        """Send a message after the previous one; waits until that one has been received.

        Raises:
            PeerLostError: The other process has ended.
        """
        self._idle.acquire()
        if self.error is not None:
            raise self.error
        self._queue.put((message, None if self.stream is None else torch.cuda.current_stream().record_event()))

    def flush(self) -> None:
        """Wait until the last message has been received.

        Raises:
            PeerLostError: The other process has ended.
        """
        self._idle.acquire()
        self._idle.release()
        if self.error is not None:
            raise self.error

    def work(self) -> None:
        """Send."""
        while True:
            message, computed = self._queue.get()
            if computed is not None:
                computed.synchronize()
            self.messenger.send(message, self.peer, self.kind)
            del message  # frees the features while waiting for the next message
            self._idle.release()

    def wake(self) -> None:
        """Wake the main thread after an error."""
        self._idle.release()


class Inbox(_Channel):
    """Receives messages in the background, ahead of their use.

    Args:
        messenger: The messenger.
        peer: The process to receive from.
        kind: The kind of the messages.
        ahead: The number of messages to receive before the first of them is used; None for any number.
    """

    def __init__(self, messenger: Messenger, peer: int, kind: int, ahead: int | None) -> None:
        self._free = None if ahead is None else threading.Semaphore(ahead)
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        super().__init__(messenger, peer, kind)

    def get(self) -> Message:
        """Return the next message.

        Raises:
            PeerLostError: The other process has ended.
        """
        message = self._queue.get()
        if message is None:
            self._queue.put(None)
            assert self.error is not None  # which wrote the None
            raise self.error
        if self._free is not None:
            self._free.release()
        if self.stream is not None:
            for tensor in message.tensors:  # allocated for another stream
                tensor.record_stream(torch.cuda.current_stream())
        return message

    def work(self) -> None:
        """Receive."""
        while True:
            if self._free is not None:
                self._free.acquire()
            self._queue.put(self.messenger.receive(self.peer, self.kind))

    def wake(self) -> None:
        """Wake the main thread after an error."""
        self._queue.put(None)
