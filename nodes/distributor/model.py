"""The Distributor (IHI 0069H; ID values of GIC-700): SPIs, group enables, and the way between redistributors.

Affinity routing is on for good in both Security states (ARE bits are RAO/WI). With two Security states GICD_CTLR.DS is RAZ/WI,
with one it is RAO/WI. nASSGIreq (SGIs without active state) is RES0 as on GIC-720AE, unless `nassgi_cap` asks for it on a GICv4.1
machine with one Security state; it changes only while all group enables are 0. Extended SPIs and NMIs are absent.

Group enables go to every redistributor, which holds back what is off. GICD_CTLR.RWP is 1 until all have acknowledged a write
that disables a group, or until the SPIs that ICENABLER disabled were given back, and for `rwp_ps` more.

Parameters: `affinities` (index = ProcessorNumber; Aff3.Aff2.Aff1.Aff0, 32 bits), `spis` (number, 480), `gic_version`,
`two_security_states`, `id_bits`, `vpe_bits`, `priority_bits` (5), `nassgi_cap` (false), `rwp_ps` (assumed 5 ns).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cosim.api import SLVERR, Bank, BusError, Channel, MmioTarget, ModelError, Node, Peer, Reg, Request, Wire, ns, on
from nodes.arch.gic_net import GIC_NET
from nodes.arch.idregs import MODEL_IIDR, pidr2
from nodes.arch.intid import SPI_BASE, SPI_LAST
from nodes.distributor.regs import GICD
from nodes.distributor.spi import AFFINITY, IRM, Spis

GRP0, GRP1_NS, GRP1_S = 1 << 0, 1 << 1, 1 << 2
ARE_S, ARE_NS, DS, E1NWF, NASSGI, RWP = 1 << 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 31
GROUPS = GRP0 | GRP1_NS | GRP1_S
EVERYBODY = -1


class Distributor(Node):
    """Registers at `regs` (64 KiB)."""

    kind = "distributor"
    parameters = {
        "affinities": list,
        "spis": range(SPI_LAST - SPI_BASE + 2),
        "gic_version": ("3", "4.0", "4.1"),
        "id_bits": range(14, 25),
        "vpe_bits": range(1, 17),
        "two_security_states": bool,
        "priority_bits": range(4, 9),
        "nassgi_cap": bool,
        "rwp_ps": int,
    }

    regs = MmioTarget("GICD_ frame")
    net = Channel(GIC_NET, "every redistributor")
    spi = Wire("shared peripheral interrupts; line = INTID")

    def setup(self) -> None:
        params = self.params
        self.gic_version = str(params.get("gic_version", "4.1"))
        if self.gic_version not in ("3", "4.0", "4.1"):
            raise ModelError(f'gic_version of {self.name} must be "3", "4.0" or "4.1", not {self.gic_version!r}')
        self.two_states = bool(params.get("two_security_states", True))
        self.affinities = [int(a) for a in params.get("affinities", [])]
        spis = int(params.get("spis", 480))
        if not 0 <= spis <= SPI_LAST - SPI_BASE + 1:
            raise ModelError(f"spis of {self.name} must be in 0..{SPI_LAST - SPI_BASE + 1}, not {spis}")
        self.lines = (SPI_BASE + spis + 31) // 32  # ITLinesNumber + 1
        limit = min(32 * self.lines, SPI_LAST + 1)
        self.spis = Spis(
            limit,
            self.affinities,
            self.two_states,
            int(params.get("priority_bits", 5)),
            lambda target, *fields: self._to(target, GIC_NET.Spi, *fields),
            lambda target, intid: self._to(target, GIC_NET.ClearSpi, intid),
            lambda intid: self.fault("spi_unroutable", "IROUTER names no PE: the SPI stays pending", intid=intid),
        )
        self._clusters: dict[int, list[tuple[int, int]]] = {}  # (Aff0, ProcessorNumber) by Aff3.Aff2.Aff1
        for n, affinity in enumerate(self.affinities):
            self._clusters.setdefault(affinity >> 8, []).append((affinity & 0xFF, n))
        self._numbers = {f"redistributor{n}": n for n in range(len(self.affinities))}
        self._groups = 0  # group enables, bits as in the Secure view of GICD_CTLR
        self._e1nwf = 0
        self._nassgi_cap = bool(params.get("nassgi_cap", False))
        if self._nassgi_cap and (self.two_states or self.gic_version != "4.1"):
            raise ModelError(f"nassgi_cap of {self.name} must be false with two Security states or before GICv4.1")
        self._nassgi = 0
        self._rwp_ps = int(params.get("rwp_ps", ns(5)))
        self._rwp = 0  # writes whose effect is not everywhere yet
        self._acks: dict[int, tuple[int, bool]] = {}  # tag -> (acknowledges to come, RWP waits)
        self._tag = 0
        self._written = 0
        self.bank = self.banks["GICD"] = Bank(GICD, on_reserved=self._reserved, on_unmodelled=self._unmodelled)
        self._identify()
        self._hook()
        self.regs.serve(self._read, self._write)
        self.spi.watch(self._level)

    def fault(self, counter: str, event: str, **fields: Any) -> None:
        """Count and log something that was dropped, ignored or wrongly used."""
        self.count[counter] += 1
        self.log(event, counter=counter, **fields)

    def _to(self, target: int, kind: Any, *fields: Any) -> None:
        self.net.send(f"redistributor{target}", kind, *fields)

    # -- registers: identification ---------------------------------------------------------------------------------------

    def _identify(self) -> None:
        bank, version = self.bank, self.gic_version
        id_bits = int(self.params.get("id_bits", 16))
        typer = self.lines - 1 | 1 << 16 | 1 << 17 | id_bits - 1 << 19 | 1 << 24  # MBIS, LPIS, IDbits, A3V
        typer |= int(self.two_states) << 10 | int(version != "3") << 18  # SecurityExtn, DVIS
        typer |= int(any(a & 0xFF > 15 for a in self.affinities)) << 26  # RSS
        bank.configure("GICD_TYPER", typer)
        vpe_bits = int(self.params.get("vpe_bits", 16))
        if version == "4.1":
            vil = 1 << 7 | vpe_bits - 1 if vpe_bits != 16 else 0  # VIL, VID
            bank.configure("GICD_TYPER2", vil | int(self._nassgi_cap) << 8)
        if version != "4.1":
            bank.configure("GICD_IIDR", MODEL_IIDR)
        if version == "3":
            bank.configure("GICD_PIDR2", pidr2(3))
        for name in bank.block.rules:
            if name.endswith("nE") or name == "GICD_INMIR":
                bank.absent(name)
        per_register = {"IGROUPR": 32, "IGRPMODR": 32, "IPRIORITYR": 4, "ICFGR": 16, "NSACR": 16, "IROUTER": 1}
        for stem in ("ENABLER", "PENDR", "ACTIVER"):
            per_register[f"IS{stem}"] = per_register[f"IC{stem}"] = 32
        for name, intids in per_register.items():
            bank.absent(f"GICD_{name}", -(-self.spis.limit // intids))

    def _reserved(self, offset: int, op: str) -> None:
        self.fault("reserved_accesses", f"{op} where this distributor has no register", offset=f"{offset:#x}")

    def _unmodelled(self, reg: Reg, index: int, op: str) -> None:
        self.fault("unmodelled_accesses", f"{op} of {reg.name}, which is not modelled", index=index)

    # -- registers: the bus ----------------------------------------------------------------------------------------------

    def _secure(self, access: Request) -> bool:
        return access.secure or not self.two_states

    def _read(self, access: Request) -> int:
        return self.bank.read(access.addr, access.size, secure=self._secure(access))

    def _write(self, access: Request) -> None:
        if not isinstance(access.data, int):
            raise BusError(SLVERR, f"registers take 1, 2, 4 or 8 bytes, not {access.size}")
        self._written = access.data
        self.bank.write(access.addr, access.size, access.data, secure=self._secure(access))

    def _hook(self) -> None:
        bank, spis = self.bank, self.spis
        bank.on_read("GICD_CTLR", lambda index: self._read_ctlr())
        bank.on_write("GICD_CTLR", self._write_ctlr)
        self._plain("GICD_IGROUPR", lambda: spis.group, "group")
        self._plain("GICD_IGRPMODR", lambda: spis.modifier, "modifier")
        self._masked("GICD_ISENABLER", lambda: spis.enabled, self._enable)
        self._masked("GICD_ICENABLER", lambda: spis.enabled, self._disable)
        self._masked("GICD_ISPENDR", lambda: spis.pending, self._set_pending, reads=1, writes=1)
        self._masked("GICD_ICPENDR", lambda: spis.pending, self._clear_pending, reads=2, writes=2)
        self._masked("GICD_ISACTIVER", lambda: spis.active, self._set_active, reads=2)
        self._masked("GICD_ICACTIVER", lambda: spis.active, self._clear_active, reads=2)
        bank.on_read("GICD_IPRIORITYR", lambda index: spis.read_priorities(index, bank.secure))
        bank.on_write(
            "GICD_IPRIORITYR", lambda index, old, new, mask: spis.write_priorities(index, new, mask, bank.secure)
        )
        bank.on_read("GICD_ICFGR", lambda index: spis.read_config(index, bank.secure))
        bank.on_write("GICD_ICFGR", lambda index, old, new, mask: spis.write_config(index, new, bank.secure))
        bank.on_read("GICD_IROUTER", lambda index: spis.router[index] if self._may(3) >> index & 1 else 0)
        bank.on_write("GICD_IROUTER", self._write_router)
        bank.on_read("GICD_NSACR", spis.read_nsacr)
        bank.on_write("GICD_NSACR", lambda index, old, new, mask: spis.write_nsacr(index, new))
        for suffix in ("NSR", "SR"):
            bank.on_write(f"GICD_SETSPI_{suffix}", self._message(spis.message_set, 1))
            bank.on_write(f"GICD_CLRSPI_{suffix}", self._message(spis.message_clear, 2))

    def _may(self, level: int) -> int:
        """The SPIs that this access may reach; `level` of GICD_NSACR opens Secure ones to Non-secure accesses (0: none)."""
        spis, secure = self.spis, self.bank.secure
        return spis.accessible(secure, level) if level else spis.visible(secure)

    def _plain(self, name: str, get: Callable[[], int], attribute: str) -> None:
        """A Secure register of one bit per SPI."""

        def write(index: int, old: int, new: int, mask: int) -> None:
            word = 0xFFFF_FFFF << 32 * index
            setattr(self.spis, attribute, get() & ~word | new << 32 * index)
            self.spis.evaluate_mask(word)

        self.bank.on_read(name, lambda index: get() >> 32 * index & 0xFFFF_FFFF)
        self.bank.on_write(name, write)

    def _masked(
        self, name: str, get: Callable[[], int], change: Callable[[int], None], *, reads: int = 0, writes: int = 0
    ) -> None:
        """A set or clear register: `change(bits)` with the bits written as 1 that this access may change.

        `reads`, `writes`: the level of GICD_NSACR from which Non-secure accesses reach a Secure SPI there; 0: never.
        """

        def write(index: int, old: int, new: int, mask: int) -> None:
            bits = self._written << 32 * index & self._may(writes) & (1 << self.spis.limit) - 1
            change(bits)

        self.bank.on_read(name, lambda index: (get() & self._may(reads)) >> 32 * index & 0xFFFF_FFFF)
        self.bank.on_write(name, write)

    # -- registers: SPIs -------------------------------------------------------------------------------------------------

    def _enable(self, bits: int) -> None:
        self.spis.enabled |= bits
        self.spis.evaluate_mask(bits)

    def _disable(self, bits: int) -> None:
        self.spis.enabled &= ~bits
        self.spis.evaluate_mask(bits)
        self._rwp += 1
        self.spis.after_clear(bits, self._effective)

    def _effective(self) -> None:
        """The effect is everywhere; GICD_CTLR.RWP says so `rwp_ps` later."""

        def passed() -> None:
            self._rwp -= 1

        self.after(self._rwp_ps, passed)

    def _set_pending(self, bits: int) -> None:
        self.spis.latch |= bits
        self.spis.evaluate_mask(bits)

    def _clear_pending(self, bits: int) -> None:
        self.spis.latch &= ~bits
        self.spis.evaluate_mask(bits)

    def _set_active(self, bits: int) -> None:
        self.spis.active |= bits
        self.spis.evaluate_mask(bits)

    def _clear_active(self, bits: int) -> None:
        self.spis.active &= ~bits
        self.spis.evaluate_mask(bits)

    def _write_router(self, index: int, old: int, new: int, mask: int) -> None:
        if self._may(3) >> index & 1:
            self.spis.router[index] = new & (AFFINITY | IRM)
            self.spis.evaluate(index)

    def _message(self, change: Callable[[int], None], level: int) -> Callable[[int, int, int, int], None]:
        def write(index: int, old: int, new: int, mask: int) -> None:
            if not SPI_BASE <= new < self.spis.limit:
                self.fault("spi_errors", f"message-based SPI must be in {SPI_BASE}..{self.spis.limit - 1}", intid=new)
            elif self._may(level) >> new & 1:
                change(new)
            else:
                self.fault("spi_errors", "Non-secure message for a Secure SPI dropped", intid=new)

        return write

    # -- GICD_CTLR -------------------------------------------------------------------------------------------------------

    def _read_ctlr(self) -> int:
        rwp = RWP if self._rwp else 0
        if not self.two_states:
            return self._groups | ARE_S | DS | self._e1nwf | self._nassgi | rwp
        if self.bank.secure:
            return self._groups | ARE_S | ARE_NS | self._e1nwf | rwp
        return self._groups & GRP1_NS | ARE_S | rwp  # bit 4 of this view is ARE_NS

    def _write_ctlr(self, index: int, old: int, new: int, mask: int) -> None:
        if not self.two_states:
            may = GRP0 | GRP1_NS
        elif self.bank.secure:
            may = GROUPS
        else:
            may = GRP1_NS  # EnableGrp1A; bit 0 is for ARE_NS = 0
        if self.bank.secure or not self.two_states:
            self._e1nwf = new & E1NWF
        groups = self._groups & ~may | new & may
        if self._nassgi_cap and (new ^ self._nassgi) & NASSGI:
            self._switch_nassgi(groups, new & NASSGI)
        if groups == self._groups:
            return
        disables = bool(self._groups & ~groups)
        self._groups = groups
        self._announce(disables)

    def _switch_nassgi(self, groups: int, value: int) -> None:
        if self._groups and groups:
            self.fault("ctlr_ignored", "nASSGIreq must not change while a group is and stays enabled", value=value >> 8)
            return
        self._nassgi = value
        for peer in self.net.peers:
            self.net.send(peer, GIC_NET.StatelessSgis, value >> 8)

    def _announce(self, disables: bool) -> None:
        """Tell every redistributor the group enables; RWP waits for them when the write disabled something."""
        self._tag += 1
        count = len(self.net.peers)
        if count == 0:
            return
        self._acks[self._tag] = (count, disables)
        self._rwp += int(disables)
        groups = self._groups
        for peer in self.net.peers:
            self.net.send(peer, GIC_NET.GroupEnables, self._tag, groups & 1, groups >> 1 & 1, groups >> 2 & 1)

    @on(GIC_NET.GroupEnablesAck)
    def _group_enables_ack(self, peer: Peer, tag: int) -> None:
        left, disables = self._acks.pop(tag)
        if left > 1:
            self._acks[tag] = (left - 1, disables)
        elif disables:
            self._effective()

    # -- SPIs ------------------------------------------------------------------------------------------------------------

    def _level(self, peer: Peer, line: int, level: int) -> None:
        if not SPI_BASE <= line < self.spis.limit:
            self.fault(
                "spi_errors", f"line of an SPI must be in {SPI_BASE}..{self.spis.limit - 1}", line=line, wire=peer.name
            )
            return
        self.spis.drive(line, level)

    @on(GIC_NET.SpiActivate)
    def _spi_activate(self, peer: Peer, intid: int) -> None:
        if not self.spis.activated(intid):
            self.fault("spi_errors", "SpiActivate of an SPI that was not sent", intid=intid, by=peer.name)

    @on(GIC_NET.SpiRelease)
    @on(GIC_NET.SpiClearAck)
    def _spi_cleared(self, peer: Peer, intid: int) -> None:
        self.spis.cleared(intid)

    @on(GIC_NET.SpiDeactivate)
    def _spi_deactivate(self, peer: Peer, intid: int) -> None:
        if SPI_BASE <= intid < self.spis.limit:
            self.spis.deactivate(intid)
        else:
            self.fault("spi_errors", "Deactivate of an SPI that does not exist", intid=intid, by=peer.name)

    @on(GIC_NET.Participation)
    def _participation(self, peer: Peer, groups: int) -> None:
        self.spis.set_participation(self._numbers[peer.name], groups)

    # -- SGIs ------------------------------------------------------------------------------------------------------------

    @on(GIC_NET.GenerateSgi)
    def _generate_sgi(self, peer: Peer, source: int, register: str, value: int, nonsecure: int) -> None:
        """ICC_SGI1R_EL1, ICC_ASGI1R_EL1 or ICC_SGI0R_EL1: to each target; it applies its own group and Security rules."""
        for target in self.sgi_targets(source, value):
            self._to(target, GIC_NET.Sgi, value >> 24 & 0xF, source, register, nonsecure)

    def sgi_targets(self, source: int, value: int) -> list[int]:
        """ProcessorNumbers an SGI register value names: with IRM all but the sender, else by affinity, RS and TargetList."""
        if value >> 40 & 1:
            return [n for n in range(len(self.affinities)) if n != source]
        cluster = (value >> 48 & 0xFF) << 16 | (value >> 32 & 0xFF) << 8 | value >> 16 & 0xFF
        first = (value >> 44 & 0xF) * 16
        return [
            n for aff0, n in self._clusters.get(cluster, ()) if first <= aff0 < first + 16 and value >> aff0 - first & 1
        ]

    # -- between redistributors ------------------------------------------------------------------------------------------

    @on(GIC_NET.Forward)
    def _forward(self, peer: Peer, target: int, kind: str, fields: tuple[Any, ...]) -> None:
        """Pass on to one redistributor, or with -1 to all but the sender."""
        source = self._numbers[peer.name]
        if target == EVERYBODY:
            for n in range(len(self.affinities)):
                if n != source:
                    self._to(n, GIC_NET.Forwarded, source, kind, fields)
        elif 0 <= target < len(self.affinities):
            self._to(target, GIC_NET.Forwarded, source, kind, fields)
        else:
            self.fault("forward_errors", f"{kind} for a redistributor that does not exist", target=target, by=peer.name)
