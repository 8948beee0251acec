"""Replay of an external node: its program, or another command such as a debugger with it, between the journal and a comparison.

The program joins as in a run (`cosim.run.attached`), gets the grants of the journal with the clocks that it had answered as
bounds, and is checked by the hub's own rules (`cosim.run.foreign`). No wall-clock limit holds.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cosim.core.barrier import ProtocolViolation
from cosim.core.codec import LIMITS, VERSION, Frame, FrameType, WireError, decode, encode
from cosim.core.time import fmt
from cosim.errors import PeerError, UsageError
from cosim.link.base import LinkClosed
from cosim.link.unix_link import FastHubSocket
from cosim.run.attached import PYTHON
from cosim.run.foreign import Foreign, Refusal, frame_text
from cosim.run.guard import processes_with
from cosim.run.hubparts import grant_frames
from cosim.run.replay import Comparison, Difference, Replayed, Script, Step, Tell, check_digests
from cosim.run.spawn import child_environment

END_TIMEOUT_S = 4.0
_SHORT_STEPS = 10_000
"""A node that answers short of a clock that it had reached in the run, so often, does not get there."""


class ForeignReplay:
    """One external node.

    Args:
        script: its journal.
        command: argv in place of the topology's; it has the terminal to itself, for a debugger: if there is one, the replay ends
            when the command does.
        wave: path, without suffix, of waveforms that it writes.
        tell: as for `Comparison`; `say` takes what the user has to do.

    Raises:
        UsageError: the node is of class `best_effort`, or there is no command.
    """

    def __init__(
        self,
        script: Script,
        command: Sequence[str] = (),
        *,
        wave: str = "",
        tell: Tell | None = None,
        say: Tell = print,
    ) -> None:
        external = script.node.external
        assert external is not None
        if external["class"] == "best_effort":
            raise UsageError(
                f"{script.node.name} must be deterministic to be replayed; its class is best_effort: the same inputs need not give "
                "the same outputs, nor at the same times",
                code="best-effort",
                node=script.node.name,
                next_step="call it deterministic in the topology, if `cosim conform` says that it is",
            )
        self.script = script
        self.comparison = Comparison(script.plan, tell)
        self._say = say
        self._own = not command  # the program of the topology, not the user's
        self._attended = bool(command) and sys.stdin.isatty()
        self._command = list(command or external["argv"])
        self._external = {**external, "wall_limit_ms": 0, "wave": bool(wave)}
        self._wave = wave
        self._token = secrets.token_hex(16)
        nodes = tuple(n._replace(external=self._external) if n.id == script.node.id else n for n in script.plan.nodes)
        self._foreign = Foreign(script.plan._replace(nodes=nodes), script.worker, script.returns, self._token, 0.0)
        self._folder = Path()
        self._link: FastHubSocket
        self._process: subprocess.Popen[bytes] | None = None
        self._identity = script.node.name.encode()
        self._seq = 0
        self._now = 0
        self._over = False  # it has answered BYE

    def run(self) -> Replayed:
        """Replay to the end of the journal, or to `until`.

        Raises:
            Difference: it went another way, or broke a rule.
            PeerError: it ended, could not be started or was refused.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="replay-"))
        before = signal.getsignal(signal.SIGINT)
        try:
            self._link = FastHubSocket(f"ipc://{self._folder / 'hub'}")
            try:
                self._start()
                self._join()
                return self._drive()
            except Difference as found:
                if self._attended:
                    self._say(
                        f"it differs from the run at {found.time_ps} ps: {found.what}; it is left to its debugger"
                    )
                raise
            finally:
                if self._attended:
                    self._end()
                self._link.close()  # a program that still runs sees it, and closes its waveforms
                self._end()
        finally:
            if not self._own:
                signal.signal(signal.SIGINT, before)
            shutil.rmtree(self._folder, ignore_errors=True)

    # -- the program ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        token = self._folder / "token"
        token.touch(0o600)
        token.write_text(self._token + "\n")
        variables = {
            "COSIM_ENDPOINT": f"ipc://{self._folder / 'hub'}",
            "COSIM_NAME": self.script.node.name,
            "COSIM_TOKEN_FILE": str(token),
            "COSIM_RUN_DIR": str(self._folder),
            **({"COSIM_WAVE": str(Path(self._wave).absolute())} if self._wave else {}),
        }
        if not self._command:
            file = self._folder / "node.env"
            file.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()))
            self._say(f"waiting for {self.script.node.name}: run its program after `. {file}`")
            return
        first, *rest = self._command
        argv = [sys.executable if first == PYTHON else first, *rest]
        inherited = {name: value for name, value in child_environment().items() if name != "COSIM_WAVE"}
        environment = {**inherited, **self._external["env"], **variables}
        try:
            if self._own:
                guard = [sys.executable, "-m", "cosim.run.guard", str(os.getpid()), *argv]
                self._process = subprocess.Popen(
                    guard,
                    stdin=subprocess.DEVNULL,
                    stdout=2,
                    cwd=self._external["cwd"],
                    process_group=0,
                    env=environment,
                )
            else:
                self._process = subprocess.Popen(argv, env=environment)
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the debugger, which has the terminal
        except OSError as error:
            raise self._peer_error("node-lost", f"{first} cannot be started: {error.strerror}") from None

    def _end(self) -> None:
        """End the program and what it has started."""
        process = self._process
        if process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            # A debugger ends when its user says so; an end is worth waiting for when there is something to be written.
            process.wait(None if self._attended else END_TIMEOUT_S if self._over or self._wave else 0)
        for pid in processes_with(str(self._folder / "token").encode()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL) if self._own else process.kill()
        process.wait()

    def _peer_error(self, code: str, what: str) -> PeerError:
        return PeerError(
            what,
            code=code,
            node=self.script.node.name,
            sim_time_ps=self._now,
            where="replay",
            next_step="" if code in ("node-lost", "node-failed") else "docs/attach.md explains the rule",
        )

    # -- frames --------------------------------------------------------------------------------------------------------

    def _receive(self) -> tuple[Frame, bytes]:
        """The next frame but LOG. Waits as long as the program lives."""
        while True:
            while (item := self._link.receive()) is None:
                status = None if self._process is None else self._process.poll()
                if self._identity in self._link.closed or (
                    status is not None and not self._link.joined(self._identity)
                ):
                    how = "its connection ended" if status is None else f"it ended with status {status}"
                    raise self._peer_error("node-lost", f"{self.script.node.name} must stay until its BYE: {how}")
                self._link.wait(100)
            identity, data = item
            if identity != self._identity:
                raise self._peer_error(
                    "unknown-name",
                    f"routing id must be {self.script.node.name!r}, not {identity!r}; {frame_text(data)}",
                )
            try:
                frame = decode(data)
                if frame.type is not FrameType.LOG:
                    return frame, data
                self._foreign.check_side(frame.body[0])
            except WireError as error:
                raise self._broken("bad-frame", f"{error}; {frame_text(data)}") from None
            except ProtocolViolation as error:
                raise self._broken(error.rule, error.text) from None

    def _send(self, frame: bytes) -> None:
        with suppress(LinkClosed):  # the receive that follows says how it ended
            self._link.send(self._identity, frame)

    def _broken(self, rule: str, text: str) -> Difference:
        return Difference(self._now, f"it broke a rule of the protocol ({rule}): {text}")

    def _wanted(self, kind: FrameType) -> Frame:
        frame, data = self._receive()
        if frame.type is FrameType.ERROR:
            raise self._peer_error("node-failed", f"{self.script.node.name} failed: {frame.body[3]}")
        if frame.type is not kind:
            raise self._broken("order", f"{kind.name} must come, not {frame.type.name}; {frame_text(data)}")
        return frame

    # -- the run -------------------------------------------------------------------------------------------------------

    def _join(self) -> None:
        hello = self._wanted(FrameType.HELLO)
        try:
            welcome = self._foreign.admit(hello.body)
        except Refusal as error:
            self._send(encode(FrameType.REFUSED, error.code, error.what))
            raise self._peer_error(error.code, error.what) from None
        self._send(encode(FrameType.WELCOME, VERSION, welcome, [LIMITS.max_frame, LIMITS.max_messages]))
        self._foreign.ready(*self._wanted(FrameType.READY).body)

    def _drive(self) -> Replayed:
        script, cut, step = self.script, False, None
        for step in script.steps:
            reached = step.bound if step.done is None else step.done[1]
            cut = reached > script.until
            if cut and self._now >= script.until:
                break
            self._grant(step, min(reached, script.until), cut)
            if cut:
                break
        whole = not cut and (step is None or step.done is not None)
        compared = 0
        self._send(encode(FrameType.BYE, "replay", None))
        final = self._wanted(FrameType.BYE)
        try:
            entry = self._foreign.final(final.body[1])[3][0]
            self._over = True
        except ProtocolViolation as error:
            raise self._broken(error.rule, error.text) from None
        if whole:
            compared = check_digests(script, {entry[0]: (entry[2], entry[3])}, self._now)
        return Replayed(
            [script.node.name],
            self.comparison.grants,
            self.comparison.messages,
            script.until if cut else self._foreign.end_time,
            compared,
            script.ending(cut, None if whole else step),
        )

    def _grant(self, step: Step, bound: int, cut: bool) -> None:
        """One grant of the journal; a node that answers short of it is granted again."""
        batches: Sequence[tuple[int, bytes]] = step.batches
        self.comparison.delivered(batches)
        blobs: list[bytes] = []
        for _ in range(_SHORT_STEPS):
            self._seq += 1
            self._foreign.granted(batches)
            self._send_grant(bound, batches)
            body = self._wanted(FrameType.DONE).body
            blobs += self._check(body, bound)
            batches = ()
            if self._now >= bound:
                break
        else:
            raise Difference(self._now, f"its clock must come to {fmt(bound)}, as in the run, and stands still")
        if step.done is None:
            self.comparison.grants += 1
        else:
            self.comparison.check([b[3] for b in step.done[5]], blobs, cut)

    def _send_grant(self, bound: int, batches: Sequence[tuple[int, bytes]]) -> None:
        for frame in grant_frames(self._seq, bound, list(batches), whole=self._foreign.whole):
            self._send(frame)

    def _check(self, body: tuple[Any, ...], bound: int) -> list[bytes]:
        seq, now, next_event, next_out, _events, _batches, _side = body
        try:
            routed = self._foreign.answered(body)
        except (ProtocolViolation, WireError) as error:
            text = error.text if isinstance(error, ProtocolViolation) else str(error)
            raise self._broken(getattr(error, "rule", "bad-frame"), text) from None
        if seq != self._seq or not self._now <= now <= bound or not now <= next_event <= next_out:
            raise self._broken(
                "times",
                f"the answer to grant {self._seq} to {bound} ps must go on from {self._now} ps and keep now <= next_event <= "
                f"next_out, not be {seq}: {now}, {next_event}, {next_out} ps",
            )
        self._now = now
        return [blob for _worker, _arrival, _wake, blob in routed]
