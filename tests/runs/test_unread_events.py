"""A run whose events nobody reads keeps a bounded number of them."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

import cosim
from cosim.run import supervisor
from tests.support.runs import ring


def test_unread_events_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that nobody listened to, the last ones are kept and end with its end; a reader from the start gets all."""
    monkeypatch.setattr(supervisor, "EVENTS_KEPT", 2)
    topology = ring(tmp_path)

    async def kinds(listen_first: bool, folder: Path) -> list[str]:
        async with cosim.launch(topology, workers=0, allow_models=["tests.support"], run_dir=folder) as run:
            if not listen_first:
                await run.result()
            return [event.kind async for event in run.events()]

    assert len(anyio.run(kinds, False, tmp_path / "late")) == 2
    heard = anyio.run(kinds, True, tmp_path / "first")
    assert {"started", "console", "log"} <= set(heard) and heard[-1] == "end"
