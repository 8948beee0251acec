"""One client of an exported function: its messages in, answers, DMA requests and interrupts out. No sockets."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from cosim.api import SLVERR, BusError, Future, Node
from cosim.export import vfio_user as protocol
from cosim.export.dma import ClientMemory
from cosim.export.function import CONFIG_SIZE, Function, Refusal
from cosim.export.vfio_user import Command, Irq, IrqSet, Message, Refused, Region, StreamError

EVENTFD = "anon_inode:[eventfd]"
IDS = 1 << 16


@dataclass(frozen=True, slots=True)
class _Asked:
    """A DMA request that the client has not answered yet."""

    command: Command
    address: int
    count: int
    future: Future[bytes]


class Session:
    """From the connection to its end. `send` takes bytes for the client; `note` takes what a person should know.

    The owner passes each message to `handle`, lets `function` advance while it is `busy`, and calls `close` at the end.
    """

    def __init__(self, name: str, cls: type[Node], send: Callable[[bytes], None], note: Callable[[str], None]) -> None:
        self._send = send
        self._note = note
        self.memory = ClientMemory(self._ask)
        self._events: dict[tuple[int, int], int] = {}
        self._asked: dict[int, _Asked] = {}
        self._given_up: dict[int, _Asked] = {}
        self._next_id = 0
        self.negotiated = False
        self.function = Function(name, cls, self.memory, self._signal, note)
        self._answers: dict[int, Callable[[Message, list[int]], bytes]] = {
            Command.DMA_MAP: self._map,
            Command.DMA_UNMAP: self._unmap,
            Command.DEVICE_GET_INFO: self._device_info,
            Command.DEVICE_GET_REGION_INFO: self._region_info,
            Command.DEVICE_GET_IRQ_INFO: self._irq_info,
            Command.DEVICE_SET_IRQS: self._set_irqs,
            Command.REGION_READ: self._region_read,
            Command.REGION_WRITE: self._region_write,
            Command.DEVICE_RESET: self._reset,
        }

    def close(self) -> None:
        """The client has gone: its memory and events are released."""
        self._give_up()
        self.memory.clear()
        for fd in self._events.values():
            os.close(fd)
        self._events.clear()

    def handle(self, message: Message, fds: list[int]) -> None:
        """Take one message; the descriptors become this session's.

        Raises:
            StreamError: the connection is of no use any more; what was sent before still has to go out.
            NodeError: the model is at fault.
        """
        try:
            if message.is_reply:
                self._replied(message)
                return
            try:
                payload = self._answer(message, fds)
            except Refused as why:
                self._refuse(message, why)
                if message.command == Command.VERSION or not self.negotiated:
                    raise StreamError(str(why)) from None
                return
            if message.wants_reply:
                self._send(protocol.reply(message, payload))
        finally:
            for fd in fds:
                os.close(fd)

    def _answer(self, message: Message, fds: list[int]) -> bytes:
        if message.command == Command.VERSION:
            return self._version(message)
        if not self.negotiated:
            raise Refused(errno.EINVAL, f"the first message must be VERSION, not command {message.command}")
        answer = self._answers.get(message.command)
        if answer is None:
            raise Refused(errno.ENOTSUP, f"command {message.command} is not supported")
        try:
            return answer(message, fds)
        except Refusal as why:
            raise Refused(errno.EIO if why.by_device else errno.EINVAL, str(why)) from None

    def _refuse(self, message: Message, why: Refused) -> None:
        name = Command(message.command).name if message.command in Command.__members__.values() else "command"
        self._note(f"refused {name}: {why} ({errno.errorcode.get(why.code, why.code)})")
        if message.wants_reply:
            self._send(protocol.error(message, why.code))

    # -- the connection ------------------------------------------------------------------------------------------------

    def _version(self, message: Message) -> bytes:
        """The reply names, of our capabilities, those that the client named."""
        if self.negotiated:
            raise Refused(errno.EINVAL, "VERSION must come once")
        theirs = protocol.parse_version(message)
        if theirs.major != protocol.VERSION[0]:
            raise Refused(
                errno.EINVAL, f"the protocol's major version must be {protocol.VERSION[0]}, not {theirs.major}"
            )
        largest = theirs.capabilities.get("max_data_xfer_size", protocol.MAX_TRANSFER)
        if largest < 1:
            raise Refused(errno.EINVAL, "max_data_xfer_size must not be 0")
        self.memory.max_transfer = min(largest, protocol.MAX_TRANSFER)
        ours = {
            "max_msg_fds": protocol.MAX_FDS,
            "max_data_xfer_size": protocol.MAX_TRANSFER,
            "pgsizes": protocol.PAGE,
        }
        self.negotiated = True
        return protocol.pack_version({name: value for name, value in ours.items() if name in theirs.capabilities})

    # -- memory --------------------------------------------------------------------------------------------------------

    def _map(self, message: Message, fds: list[int]) -> bytes:
        if len(fds) > 1:
            raise Refused(errno.EINVAL, f"DMA_MAP must bring one descriptor at most, not {len(fds)}")
        self.memory.map(protocol.parse_map(message), fds[0] if fds else None)
        return b""

    def _unmap(self, message: Message, fds: list[int]) -> bytes:
        request = protocol.parse_unmap(message)
        for window in self.memory.unmap(request):
            self._give_up(window.base, window.base + window.size)
        return protocol.pack_unmapped(request)

    def _ask(self, address: int, count: int, data: bytes | None) -> Future[bytes]:
        """DMA_READ, or DMA_WRITE of `data`."""
        code = Command.DMA_READ if data is None else Command.DMA_WRITE
        future: Future[bytes] = Future("the client's answer to a DMA request")
        if len(self._asked) + len(self._given_up) >= IDS:
            future.fail(
                BusError(SLVERR, f"{IDS} DMA requests wait for the client's answers: no more can be told apart")
            )
            return future
        while self._next_id in self._asked or self._next_id in self._given_up:
            self._next_id = (self._next_id + 1) % IDS
        self._asked[self._next_id] = _Asked(code, address, count, future)
        self._send(protocol.command(self._next_id, code, protocol.pack_dma(address, count, data or b"")))
        self._next_id = (self._next_id + 1) % IDS
        return future

    def _replied(self, message: Message) -> None:
        late = self._given_up.get(message.id)
        asked = self._asked.get(message.id) or late
        if asked is None or asked.command != message.command:
            raise StreamError(f"no request is open that a reply {message.id} to command {message.command} answers")
        if late is not None:
            del self._given_up[message.id]
            return
        if not message.failed:
            data = protocol.parse_dma_reply(message, asked.address, asked.count)
            del self._asked[message.id]
            asked.future.set(data)
        else:
            del self._asked[message.id]
            code = errno.errorcode.get(message.error, str(message.error))
            asked.future.fail(BusError(SLVERR, f"the client refused {asked.command.name}: {code}"))
        self.function.wake()

    def _give_up(self, low: int = 0, high: int = 1 << 64) -> None:
        """Requests in a range of addresses whose answers count no more: the accesses fail, the answers are dropped."""
        for number in [n for n, asked in self._asked.items() if low <= asked.address < high]:
            asked = self._given_up[number] = self._asked.pop(number)
            asked.future.fail(BusError(SLVERR, "the client took the memory back"))
            self.function.wake()

    # -- the device ----------------------------------------------------------------------------------------------------

    def _device_info(self, message: Message, fds: list[int]) -> bytes:
        protocol.parse_info(message, protocol.DEVICE_INFO_SIZE)
        return protocol.pack_device_info(protocol.DEVICE_RESET_SUPPORTED | protocol.DEVICE_PCI)

    def _region_info(self, message: Message, fds: list[int]) -> bytes:
        index = protocol.parse_info(message, protocol.REGION_INFO_SIZE).index
        if index >= protocol.REGIONS:
            raise Refused(errno.EINVAL, f"a region's index must be below {protocol.REGIONS}, not {index}")
        size = CONFIG_SIZE if index == Region.CONFIG else self.function.region_size(index)
        return protocol.pack_region_info(index, size)

    def _region_read(self, message: Message, fds: list[int]) -> bytes:
        request = protocol.parse_access(message)
        if request.region == Region.CONFIG:
            data = self.function.read_config(request.offset, request.count)
        else:
            data = self.function.read_bar(request.region, request.offset, request.count)
        return protocol.pack_access(request, data)

    def _region_write(self, message: Message, fds: list[int]) -> bytes:
        request = protocol.parse_access(message)
        if request.region == Region.CONFIG:
            self.function.write_config(request.offset, request.data)
        else:
            self.function.write_bar(request.region, request.offset, request.data)
        return protocol.pack_access(request)

    def _reset(self, message: Message, fds: list[int]) -> bytes:
        """A new model; memory and events stay the client's, as with vfio-pci."""
        self._give_up()
        self.function.power_on()
        return b""

    # -- interrupts ----------------------------------------------------------------------------------------------------

    def _vectors(self, index: int) -> int:
        return {Irq.MSIX: self.function.msix.vectors, Irq.ERR: 1}.get(Irq(index), 0)

    def _irq_info(self, message: Message, fds: list[int]) -> bytes:
        index = protocol.parse_info(message, protocol.IRQ_INFO_SIZE).index
        if index >= protocol.IRQS:
            raise Refused(errno.EINVAL, f"an interrupt's index must be below {protocol.IRQS}, not {index}")
        count = self._vectors(index)
        flags = protocol.IRQ_EVENTFD if count else 0
        return protocol.pack_irq_info(index, flags | (protocol.IRQ_MASKABLE if index == Irq.MSIX else 0), count)

    def _set_irqs(self, message: Message, fds: list[int]) -> bytes:
        request = protocol.parse_set_irqs(message)
        have = self._vectors(request.index) if request.index < protocol.IRQS else 0
        if request.start + request.count > have:
            raise Refused(
                errno.EINVAL,
                f"index {request.index} has {have} interrupts: {request.count} from {request.start} are not all there",
            )
        if IrqSet.EVENTFD in request.flags:
            self._set_events(request, fds)
            return b""
        if request.count == 0 and request.flags == IrqSet.NONE | IrqSet.TRIGGER:
            for index, vector in [key for key in self._events if key[0] == request.index]:
                self._drop_event(index, vector)
            return b""
        chosen = [n for n in range(request.count) if IrqSet.NONE in request.flags or request.data[n]]
        for vector in (request.start + n for n in chosen):
            if IrqSet.TRIGGER in request.flags:
                self._fire(request.index, vector)
            elif request.index == Irq.MSIX:
                self.function.mask(vector, masked=IrqSet.MASK in request.flags)
            else:
                raise Refused(errno.EINVAL, f"interrupts of index {request.index} can't be masked")
        return b""

    def _set_events(self, request: protocol.SetIrqs, fds: list[int]) -> None:
        """Give `count` interrupts an event each; without descriptors take theirs away."""
        if IrqSet.TRIGGER not in request.flags:
            raise Refused(errno.ENOTSUP, "events for masking and unmasking are not supported")
        if fds and len(fds) != request.count:
            raise Refused(errno.EINVAL, f"{request.count} interrupts must get as many descriptors, not {len(fds)}")
        for fd in fds:
            if os.readlink(f"/proc/self/fd/{fd}") != EVENTFD:
                raise Refused(errno.EINVAL, "a descriptor for an interrupt must be an eventfd")
        for n in range(request.count):
            vector = request.start + n
            self._drop_event(request.index, vector)
            if fds:
                self._events[request.index, vector] = os.dup(fds[n])
                if request.index == Irq.MSIX:
                    self.function.arm(vector)

    def _drop_event(self, index: int, vector: int) -> None:
        fd = self._events.pop((index, vector), None)
        if fd is not None:
            os.close(fd)
            if index == Irq.MSIX:
                self.function.disarm(vector)

    def _signal(self, vector: int) -> bool:
        """The model's MSI-X write for a vector; whether the client has an event for it."""
        return self._fire(Irq.MSIX, vector)

    def _fire(self, index: int, vector: int) -> bool:
        fd = self._events.get((index, vector))
        if fd is None:
            return False
        with suppress(
            BlockingIOError
        ):  # its count is at the limit: the client has not looked, and will find it signalled
            os.eventfd_write(fd, 1)
        return True
