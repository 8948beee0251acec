"""A host's hub between a root and workers that are both played by the test."""

from __future__ import annotations

from typing import Any

from cosim.core.codec import FrameType, decode, encode
from cosim.core.plan import HostPlan, LinkPlan, NodePlan, Plan
from cosim.core.time import NEVER
from cosim.link.memory_link import Switch
from cosim.run.hosthub import HostHub
from cosim.run.hostwire import Entry, error_fields, pack_parcels

NODES = tuple(NodePlan(n, f"n{n}", "node", {}) for n in range(2))
PLAN = Plan(
    "p",
    1,
    NODES,
    (LinkPlan(0, 0, "o", 1, "i", 10, {}), LinkPlan(1, 1, "o", 0, "i", 10, {})),
    ((0,), (1,)),
    hosts=(HostPlan("h0", "", (0,)), HostPlan("h1", "", (1,))),
)


class Root:
    """The host's end of its link to the root: what comes is put there by the test."""

    def __init__(self) -> None:
        self.coming: list[bytes] = []
        self.sent: list[bytes] = []

    def receive(self, timeout_ms: int | None = None) -> bytes | None:
        """The next frame that the test has put there."""
        return self.coming.pop(0) if self.coming else None

    def send(self, frame: bytes) -> None:
        """Keep it."""
        self.sent.append(frame)

    def close(self) -> None:
        """There is nothing to close."""


def test_an_input_below_the_clock_is_told_to_the_root() -> None:
    """A root that breaks I1 ends the run by an error that names worker and times, as a fault of cosim; the hub stays up."""
    root, link = Root(), Switch()
    hub = HostHub(PLAN, 0, root, link, lambda event: None)
    worker = link.connect("w0")
    said: list[tuple[FrameType, Any]] = [
        (FrameType.HELLO, ((1, 0), "w0", "python", 1, {})),
        (FrameType.READY, (50, 50)),
    ]
    for kind, body in said:
        worker.send(encode(kind, *body))
    root.coming = [encode(FrameType.GRANT, 1, 100, [])]
    hub._step()
    hub._step()
    worker.send(encode(FrameType.DONE, 1, 100, NEVER, NEVER, 1, [], None))
    hub._step()
    parcel = next(pack_parcels(1, [Entry(0, 1, 99, 99, b"")]))[3]
    root.coming = [encode(FrameType.GRANT, 2, 200, [(1, parcel)])]
    hub._step()
    errors = [decode(frame).body for frame in root.sent if decode(frame).type is FrameType.ERROR]
    assert len(errors) == 1
    code, _node, _time, what, text = errors[0]
    assert code == "bad-frame" and "at or after 100 ps, not at 99 ps" in what
    assert error_fields(text)["exit_code"] == 5
