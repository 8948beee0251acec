"""Between a redistributor and the CPU interface of its PE, after the GIC Stream Protocol (IHI 0069, "GIC Stream Protocol
interface"): the packets' names and meaning, not their bit encoding.

Down (redistributor to PE): Set and VSet offer the highest-priority pending physical or virtual interrupt (a new one replaces
the one held, which the PE then Releases); Clear and VClear withdraw it; Quiesce asks for silence. Up: Activate (taken),
Release (given back untaken), Deactivate, GenerateSgi, UpstreamControl and the acknowledges. `vpeid` -1 in Activate and
Release means a physical interrupt.
"""

from __future__ import annotations

from cosim.api import PRIORITY_LEVEL, PRIORITY_RESPONSE, Protocol

GIC_STREAM = Protocol(
    "gic_stream",
    16,
    [
        ("Set", PRIORITY_LEVEL, ("intid", "priority", "group")),
        ("Clear", PRIORITY_LEVEL, ("intid",)),
        ("VSet", PRIORITY_LEVEL, ("vpeid", "intid", "priority", "group")),
        ("VClear", PRIORITY_LEVEL, ("vpeid", "intid")),
        ("Quiesce", PRIORITY_LEVEL, ()),
        ("DownstreamControl", PRIORITY_LEVEL, ("identifier", "value")),
        ("Activate", PRIORITY_RESPONSE, ("vpeid", "intid")),
        ("Release", PRIORITY_RESPONSE, ("vpeid", "intid")),
        ("Deactivate", PRIORITY_RESPONSE, ("intid", "group")),
        ("GenerateSgi", PRIORITY_RESPONSE, ("register", "value", "nonsecure")),
        ("UpstreamControl", PRIORITY_RESPONSE, ("identifier", "value")),
        ("ClearAck", PRIORITY_RESPONSE, ("intid",)),
        ("VClearAck", PRIORITY_RESPONSE, ("vpeid", "intid")),
        ("QuiesceAck", PRIORITY_RESPONSE, ()),
        ("DownstreamControlAck", PRIORITY_RESPONSE, ("identifier",)),
    ],
)
"""`group`: 0, 1 (Non-secure Group 1) or 2 (Secure Group 1). `register` of GenerateSgi: "SGI1R", "ASGI1R" or "SGI0R"."""
