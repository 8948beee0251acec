"""Stock QEMU as the GIC and ITS of a machine: ``python node.py [QEMU]``. Started by cosim; see docs/attach-qemu.md.

Ports, all in QEMU's own addresses where they have any:

gic    frames of GICD, GITS and GICR, 1 to 8 bytes, aligned; the offset is the address. What is no frame answers DECERR
ram    QEMU's RAM, which the ITS and the redistributors use; the offset is the address
cpu    system registers of the GIC, 8 bytes: offset = CPU << 20 | guest << 19 | encoding << 3, encoding as in an MRS (op0, op1,
       CRn, CRm, op2); guest = 1 with GICv4.0: as a guest sees them, that is, the virtual CPU interface
msi    GITS_TRANSLATER at offset 0x40; the DeviceID is the attribute `device_id` of the requester's link
spi    line n in: SPI n (INTID 32 + n)
ppi    line 32 * CPU + INTID in: that PPI of that CPU
reset  line 0 in: a rise resets the machine, RAM excepted
irq    line 4 * CPU out: IRQ of that CPU, + 1: FIQ, + 2: virtual IRQ, + 3: virtual FIQ; to every peer

Parameters: cpus, ram (bytes), gic_version ("3", "4.0"). QEMU has no time: completions and levels leave at the time of their
cause, and take the latency of their links.
"""

from __future__ import annotations

import sys

from cosim.attach.client import DECERR, SLVERR, AttachClient, Message
from cosim.attach.qemu import BINARY, LINES, MIB, SPIS, QemuError, QemuGic, encoding, version

PORTS = {
    "gic": "mmio_target", "ram": "mmio_target", "cpu": "mmio_target", "msi": "mmio_target",
    "spi": "wire", "ppi": "wire", "reset": "wire", "irq": "wire",
}  # fmt: skip
TRANSLATER_FRAME, TRANSLATER_OFFSET = 0x0809_0000, 0x40
CPU_SHIFT, GUEST_SHIFT, REGISTER_SHIFT = 20, 19, 3
ANSWER_PART = 0.7  # of a grant's wall-clock limit: the message about a QEMU that hangs is to be ours
PPI_BASE = 16
EVENT_LIMIT = 1 << 16  # the MSI data register of a PCI function has 16 bits
GIC_REGISTERS = {
    *(encoding(3, 0, 4, 6, 0), encoding(3, 0, 12, 11, 1), encoding(3, 0, 12, 11, 3)),  # ICC_PMR, DIR, RPR
    *(encoding(3, 0, 12, 11, op2) for op2 in (5, 6, 7)),  # ICC_SGI1R, ASGI1R, SGI0R
    *(encoding(3, 0, 12, 8, op2) for op2 in range(8)),  # ICC_IAR0, EOIR0, HPPIR0, BPR0, AP0R
    *(encoding(3, 0, 12, 9, op2) for op2 in range(4)),  # ICC_AP1R
    *(encoding(3, 0, 12, 12, op2) for op2 in range(8)),  # ICC_IAR1, EOIR1, HPPIR1, BPR1, CTLR, SRE, IGRPEN0 and 1
    *(encoding(3, 4, 12, crm, op2) for crm in (8, 9, 11, 12, 13) for op2 in range(8)),  # ICH_, of GICv4.0
}
READS_THAT_ACKNOWLEDGE = {encoding(3, 0, 12, 8, 0), encoding(3, 0, 12, 12, 0)}  # ICC_IAR0, ICC_IAR1


class Gic:
    """The node: messages in, accesses of QEMU, completions and levels out."""

    def __init__(self, node: AttachClient, binary: str) -> None:
        params = node.params
        self.node = node
        self.device_ids = {
            row.id: int(row.attributes.get("device_id", 0))
            for row in node.plan.links
            if row.port == "msi" and not row.out
        }
        self.peers = [row.peer for row in node.plan.links if row.port == "irq" and row.out]
        self.qemu = QemuGic(
            cpus=int(params.get("cpus", 2)),
            ram=int(params.get("ram", 16 * MIB)),
            gic_version=str(params.get("gic_version", "3")),
            device_ids=self.device_ids.values(),
            binary=binary,
            answer_s=node.plan.wall_limit_ms / 1000 * ANSWER_PART or None,
        )
        self.levels = [0] * (len(LINES) * self.qemu.cpus)
        node.count.update(dict.fromkeys(("msis", "bus_errors", "translater_writes_dropped"), 0))

    def take(self, message: Message) -> None:
        """Carry out one input."""
        if message.kind == "wire.Level":
            self._wire(message)
        else:
            getattr(self, f"_{message.port}")(message)

    # -- lines ---------------------------------------------------------------------------------------------------------

    def _wire(self, message: Message) -> None:
        if message.port == "spi":
            if not 0 <= message.line < SPIS:
                raise ValueError(f"line of {message.peer} at port spi must be 0 to {SPIS - 1}, not {message.line}")
            self.qemu.spi(message.line, message.level)
        elif message.port == "ppi":
            cpu, intid = divmod(message.line, 32)
            if not 0 <= cpu < self.qemu.cpus or intid < PPI_BASE:
                raise ValueError(
                    f"line of {message.peer} at port ppi must be 32 * CPU + INTID of a PPI (16 to 31), not {message.line}"
                )
            self.qemu.ppi(cpu, intid, message.level)
        elif message.level:
            self.qemu.reset()
        self._look()

    def _look(self) -> None:
        """Send the lines that changed."""
        node = self.node
        levels = [level for cpu in range(self.qemu.cpus) for level in self.qemu.lines(cpu)]
        for line, (before, level) in enumerate(zip(self.levels, levels, strict=True)):
            if before != level:
                for peer in self.peers:
                    node.send("irq", "wire.Level", (line, level), to=peer)
        self.levels = levels

    # -- bus accesses --------------------------------------------------------------------------------------------------

    def _answer(self, message: Message, data: int | bytes = 0) -> None:
        self.node.reply(message, data=data)

    def _refuse(self, message: Message, status: int) -> None:
        self.node.count["bus_errors"] += 1
        self.node.reply(message, status)

    def _gic(self, message: Message) -> None:
        address, size = message.addr, message.size
        if not any(window.holds(address, size) for window in self.qemu.frames):
            self._refuse(message, DECERR)
        elif size not in (1, 2, 4, 8) or address % size:
            self._refuse(message, SLVERR)
        elif message.kind == "mmio.Read":
            self._answer(message, self.qemu.load(address, size))
        else:
            if TRANSLATER_FRAME <= address < TRANSLATER_FRAME + 0x1_0000:  # only devices have a DeviceID
                self.node.count["translater_writes_dropped"] += 1
            else:
                self.qemu.store(address, size, message.data)
                self._look()
            self._answer(message)

    def _ram(self, message: Message) -> None:
        size = message.size
        if not self.qemu.ram.holds(message.addr, size):
            self._refuse(message, DECERR)
        elif message.kind == "mmio.Read":
            found = self.qemu.read(message.addr, size)
            self._answer(message, int.from_bytes(found, "little") if size in (1, 2, 4, 8) else found)
        else:
            data = message.data
            self.qemu.write(message.addr, data.to_bytes(size, "little") if isinstance(data, int) else data)
            self._answer(message)

    def _cpu(self, message: Message) -> None:
        cpu, register = message.addr >> CPU_SHIFT, message.addr >> REGISTER_SHIFT & 0xFFFF
        known = cpu < self.qemu.cpus and register in GIC_REGISTERS
        guest = bool(message.addr >> GUEST_SHIFT & 1)
        if not known or message.size != 8 or message.addr % 8:
            self._refuse(message, SLVERR)
            return
        value: int | None
        if message.kind == "mmio.Read":
            value = self.qemu.mrs(cpu, register, guest=guest)
        else:
            value = 0 if self.qemu.msr(cpu, register, message.data, guest=guest) else None
        if message.kind != "mmio.Read" or register in READS_THAT_ACKNOWLEDGE:
            self._look()
        if value is None:
            self._refuse(message, SLVERR)  # undefined, such as a write to a register that can only be read
        else:
            self._answer(message, value)

    def _msi(self, message: Message) -> None:
        good = message.kind != "mmio.Read" and message.addr == TRANSLATER_OFFSET and message.size in (2, 4)
        if not good or message.data >= EVENT_LIMIT:
            self._refuse(message, SLVERR)
            return
        self.node.count["msis"] += 1
        self.qemu.msi(self.device_ids[message.link], message.data)
        self._look()
        self._answer(message)


def serve(node: AttachClient, binary: str) -> None:
    """The node's life. The GIC has no events of its own: it never asks for a grant, and costs nothing while it has no input."""
    gic = Gic(node, binary)
    try:
        for grant in node:
            for message in grant:
                gic.take(message)
            node.done()
    finally:
        gic.qemu.close()


def main(arguments: list[str]) -> int:
    """Serve until the run is over; the exit status is 1 when QEMU fails."""
    binary = arguments[0] if arguments else BINARY
    model: dict[str, str] = {}
    missing: QemuError | None = None
    try:
        model["qemu"] = version(binary)
    except QemuError as error:
        missing = error  # the run is to be told, so join it first
    try:
        with AttachClient.from_env(ports=PORTS, model=model) as node:
            if missing is not None:
                raise missing
            serve(node, binary)
    except QemuError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
