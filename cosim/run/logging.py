"""log.jsonl: what nodes and the supervisor logged, one JSON object a line, by structlog."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from cosim.core.time import fmt
from cosim.run.rundir import unwritable


class RunLog:
    """Writes log.jsonl. Events of nodes carry `t_ps` and `node`; those of the supervisor `wall` and ``node="cosim"``."""

    def __init__(self, path: Path, run: str) -> None:
        self._path = path
        try:
            self._file = path.open("a", buffering=1)
        except OSError as error:
            raise unwritable(path, error) from None
        self._log = structlog.wrap_logger(
            structlog.WriteLogger(self._file),
            processors=[structlog.processors.JSONRenderer(default=str)],
            wrapper_class=structlog.BoundLogger,
        ).bind(run=run)
        self._own = structlog.wrap_logger(
            structlog.WriteLogger(self._file),
            processors=[
                structlog.processors.TimeStamper(fmt="iso", key="wall"),
                structlog.processors.JSONRenderer(default=str),
            ],
            wrapper_class=structlog.BoundLogger,
        ).bind(run=run, node="cosim")

    def node(self, t_ps: int, node: str, event: str, fields: dict[str, Any]) -> None:
        """An event of a node at simulated time `t_ps`; with the field level="debug" `cosim logs` shows it only when asked."""
        clean = {(f"{k}_" if k in ("event", "t_ps", "node", "t") else k): v for k, v in fields.items()}
        with self._writing():
            self._log.info(event, t_ps=t_ps, t=fmt(t_ps), node=node, **clean)

    def own(self, event: str, **fields: Any) -> None:
        """An event of the supervisor."""
        with self._writing():
            self._own.info(event, **fields)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unwritable(self._path, error) from None

    def error(self, entry: Mapping[str, Any]) -> None:
        """An error of the run, under ``node="cosim"``; `about` names the node that it concerns."""
        self._own.error("error", **{("about" if name == "node" else name): value for name, value in entry.items()})

    def close(self) -> None:
        """Close the file."""
        with self._writing():
            self._file.close()
