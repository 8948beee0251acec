"""What an ITS is built with: widths and features from the topology's parameters, and the ID registers that follow.

Feature sets per GIC version: IHI 0069H 12.19 (GITS_TYPER), Arm GIC-700 and GIC-720AE TRMs for GICv4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cosim.api import ModelError, ms, ns
from nodes.arch.idregs import GIC700_IIDR, MODEL_IIDR
from nodes.its.entries import IteFormat

VERSIONS = ("3", "4.0", "4.1")

_WIDTHS = {  # parameter: (lowest, highest, default)
    "device_bits": (1, 32, 20),
    "event_bits": (1, 32, 16),
    "collection_bits": (1, 16, 16),
    "vpe_bits": (1, 16, 16),
    "id_bits": (14, 23, 16),
}


@dataclass(frozen=True, slots=True)
class Config:
    """Widths in bits; `stalls`: a command error stops the queue until CWRITER.Retry, else the command is skipped; `vmovp`:
    GITS_TYPER.VMOVP, one ITS does it for all; `svpet`: affinity levels that ITSs sharing a vPE table have in common; `umsi`,
    `umsi_intid`: unmapped MSIs are recorded, and raise that SPI (0: no interrupt); `affinity`: of GITS_MPIDR, Aff3.Aff2.Aff1 in
    [31:8]; `command_ps`: time of a command beside its memory accesses; `quiescent_ps`: from Enabled = 0 to Quiescent = 1."""

    gic_version: str
    device_bits: int
    event_bits: int
    collection_bits: int
    vpe_bits: int
    id_bits: int
    stalls: bool
    index: int = 0
    vmovp: bool = True
    svpet: int = 0
    umsi: bool = False
    umsi_intid: int = 0
    affinity: int = 0
    command_ps: int = 0
    quiescent_ps: int = 0

    @property
    def virtual(self) -> bool:
        """GICv4.0 and later: vLPIs are injected directly."""
        return self.gic_version != "3"

    @property
    def v41(self) -> bool:
        """GICv4.1: vSGIs, default doorbells, the vPE table shared with other ITSs and the redistributors."""
        return self.gic_version == "4.1"

    @property
    def shared_vpes(self) -> bool:
        """GITS_TYPER.SVPET: the vPE table is shared with other ITSs and the redistributors."""
        return self.svpet != 0

    @property
    def meets(self) -> bool:
        """VMOVP goes to each ITS of its list, and they wait for one another (GITS_TYPER.VMOVP = 0)."""
        return self.virtual and not self.vmovp

    @property
    def individual_doorbells(self) -> bool:
        """GITS_TYPER.nID = 0: the Dbell fields of VMAPTI, VMAPI and VMOVI mean something."""
        return self.gic_version == "4.0"

    @property
    def ite(self) -> IteFormat:
        """Format of interrupt translation entries: as narrow as the widths allow."""
        target = max(self.collection_bits, self.vpe_bits if self.virtual else 0)
        return IteFormat(self.id_bits, target, self.individual_doorbells)

    @property
    def iidr(self) -> int:
        """GITS_IIDR."""
        return GIC700_IIDR if self.v41 else MODEL_IIDR

    @property
    def typer(self) -> int:
        """GITS_TYPER."""
        fields = [
            (0, 1),  # Physical
            (1, self.virtual),
            (4, self.ite.size - 1),  # ITT_entry_size
            (8, self.event_bits - 1),  # ID_bits
            (13, self.device_bits - 1),  # Devbits
            (32, self.collection_bits - 1),  # CIDbits
            (36, 1),  # CIL
            (37, self.virtual and self.vmovp),  # VMOVP
            (38, self.v41),  # MPAM
            (39, self.v41),  # VSGI
            (40, self.v41),  # VMAPP
            (41, self.svpet),  # SVPET
            (43, self.v41),  # nID
            (44, self.umsi),  # UMSI
            (45, self.umsi_intid != 0),  # UMSIirq
            (46, 1),  # INV
        ]
        return sum(int(value) << low for low, value in fields)


def read_config(name: str, params: Mapping[str, Any]) -> Config:
    """Check a node's parameters.

    Raises:
        ModelError: a width out of range, an unknown version or error mode.
    """
    version = params.get("gic_version", "4.1")
    if version not in VERSIONS:
        raise ModelError(f"gic_version of {name} must be one of {', '.join(VERSIONS)}, not {version!r}")
    mode = params.get("command_error", "skip")
    if mode not in ("skip", "stall"):
        raise ModelError(f'command_error of {name} must be "skip" or "stall", not {mode!r}')
    widths: dict[str, Any] = {}
    for key, (low, high, default) in _WIDTHS.items():
        value = params.get(key, default)
        if not isinstance(value, int) or not low <= value <= high:
            raise ModelError(f"{key} of {name} must be in {low}..{high}, not {value!r}")
        widths[key] = value
    return Config(gic_version=version, stalls=mode == "stall", **widths, **_options(name, params, version == "4.1"))


_OPTIONS = {  # parameter: (lowest, highest, default)
    "index": (0, 15, 0),
    "svpet": (0, 3, 1),
    "umsi_intid": (0, 1019, 0),
    "affinity": (0, 0xFFFF_FFFF, 0),
    "command_ps": (0, ms(1), ns(2)),
    "quiescent_ps": (0, ms(1), ns(20)),
}


def _options(name: str, params: Mapping[str, Any], v41: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"vmovp": bool(params.get("vmovp", True)), "umsi": bool(params.get("umsi", False))}
    for key, (low, high, default) in _OPTIONS.items():
        value = params.get(key, default)
        if not isinstance(value, int) or not low <= value <= high:
            raise ModelError(f"{key} of {name} must be in {low}..{high}, not {value!r}")
        options[key] = value
    if options["umsi_intid"] and not options["umsi"]:
        raise ModelError(f"umsi_intid of {name} must be 0 without umsi, not {options['umsi_intid']}")
    if not v41:
        options["svpet"] = 0
    return options
