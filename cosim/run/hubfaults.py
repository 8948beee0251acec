"""What a hub does about workers that die, break a rule or whose model fails: one error each, with names."""

from __future__ import annotations

import time
from typing import Any

from cosim.core.time import fmt
from cosim.run.hubparts import place_of
from cosim.run.hubstate import HubState

LAST_WORDS_S = 0.5

_OWN_FAULTS = ("bad-frame", "forged-source", "message-in-the-past", "bad-link")

_FOREIGN_STEPS = {
    "wave": "docs/attach.md has how a node writes waveforms; --wave-of NODE in place of --wave asks only those named",
}
"""What to do next about a foreign node, where it is not to look for a rule of time."""


class Faults(HubState):
    """Errors of a run at its hub."""

    def _last_words(self, worker: int) -> None:
        """Take what a process that has ended had sent before: its report or its error says more than its end."""
        identity, deadline = self._identity[worker], time.monotonic() + LAST_WORDS_S
        while worker not in self._lost and worker not in self._finals:
            item = self.link.receive()
            if item is not None:
                self._take(*item)
            elif not self.link.joined(identity) or time.monotonic() > deadline:
                return
            else:
                self.link.wait(20)

    def _strike(self, worker: int) -> bool:
        """Take a worker that is gone off the books; False if it is off already, or had ended before."""
        if worker in self._lost or worker in self._finals:
            return False
        self._lost.add(worker)
        self._granted_at.pop(worker, None)
        if worker in self._ready:
            self.barrier.lost(worker)
        return True

    def _lose(self, worker: int, text: str) -> None:
        if not self._strike(worker):
            return
        blocked = [w.name for w in self.barrier.explain() if worker in w.chain or w.limiter == worker]
        name = self.plan.nodes[self.groups[worker][0]].name
        pid = self._pid.get(worker, "unknown") or "unknown"  # 0: the node's client does not know it
        self._error(
            "worker-lost",
            f"worker process of {self._nodes_text(worker)} is gone: {text}; its last simulated time was {fmt(self._now[worker])}",
            node=name,
            sim_time_ps=self._now[worker],
            where=f"worker w{self.served[worker]}, pid {pid}",
            next_step=(
                f"its output is workers/{name}.log of the run directory"
                + (f"; `cosim replay RUN {name}` drives it to there again, also under gdb" * (worker in self._ready))
                if worker in self._foreign
                else "see log.jsonl and the journal in the run directory"
            )
            + (f"; waiting for it: {', '.join(blocked[:8])}" if blocked else ""),
            exit_code=4,
        )

    def _fault(self, worker: int, rule: str, text: str) -> None:
        self._lost.add(worker)
        self._granted_at.pop(worker, None)
        self._error(
            rule,
            f"{self._nodes_text(worker)} broke a rule of the protocol ({rule}): {text}",
            node=self.plan.nodes[self.groups[worker][0]].name,
            sim_time_ps=self._now[worker],
            where=f"worker w{self.served[worker]}",
            next_step=_FOREIGN_STEPS.get(
                rule, "docs/attach.md explains the rule, `cosim conform` shows it to you alone"
            )
            if worker in self._foreign
            else "docs/protocol.md explains the rule; a Python worker that breaks it is a fault of cosim: please report it",
            exit_code=4,
        )

    def _model_error(self, worker: int, body: tuple[Any, ...]) -> None:
        code, node, sim_time, what, text = body
        self._lost.add(worker)
        self._granted_at.pop(worker, None)
        self._error(
            code,
            f"model {node} failed at {fmt(sim_time)}: {what}",
            node=node,
            sim_time_ps=sim_time,
            where=place_of(text),
            next_step="its traceback is in log.jsonl (cosim logs NODE); mend the model, or report it if it is one of cosim's",
            traceback=text,
            exit_code=4 if worker in self._foreign else 5 if code in _OWN_FAULTS else 3,
        )

    def _error(self, code: str, what: str, *, exit_code: int, **fields: Any) -> None:
        self._errors += 1
        self.emit(["error", {"code": code, "what": what, "exit_code": exit_code, **fields}])
        self._end("error")

    def _nodes_text(self, worker: int) -> str:
        names = [self.plan.nodes[node].name for node in self.groups[worker]]
        return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more nodes"
