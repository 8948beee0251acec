"""Engine `slurm`: one job step with one task per slot, all started together or not at all.

Outside an allocation the job is submitted by sbatch; inside one (``SLURM_JOB_ID`` is set: a batch script or salloc that runs
``cosim up``) its nodes are used by srun. The run directory must be on a file system that the nodes share: credentials are
files of mode 0600 there, and logs and exit statuses come back that way. A slot that fails ends the whole step at once
(``--kill-on-bad-exit``). A submitted job does not end with a driver that was killed: its lease ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Never

import anyio

from cosim.engines.base import Exit, Slot, program, with_credential_file, write_private
from cosim.engines.files import SlotFiles
from cosim.engines.options import read_options
from cosim.engines.programs import Programs, how, tail
from cosim.engines.slot import order
from cosim.errors import PeerError, UsageError

STEP = "srun"
"""Name of the step among `Programs`, when the engine runs inside an allocation."""
FINAL_WAIT_S = 2.0
"""From the end of a job to its slots' exit files: a shared file system may be late."""
STOP_WAIT_S = 0.6
"""From scancel to the end of all slots; what takes longer, or can't be reached, ends without being waited for."""
COMMAND_LIMIT_S = 30.0

NEVER = frozenset(
    "PartitionConfig PartitionNodeLimit PartitionTimeLimit PartitionDown PartitionInactive BadConstraints AccountNotAllowed "
    "QOSNotAllowed InvalidAccount InvalidQOS JobHeldUser JobHeldAdmin ReqNodeNotAvail NodeDown".split()
)
"""Reasons of a pending job that waiting does not change (squeue(1), JOB REASON CODES)."""
UNKNOWN = "UNKNOWN"
"""State of a job when squeue fails: a controller that is away or overloaded for a while ends no job."""
_WAITING = frozenset(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"))
_ALIVE = frozenset(("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"))


@dataclass(frozen=True)
class SlurmOptions:
    """What ``--engine-option`` may set."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    time: str = ""
    """Wall-clock limit of the job, as sbatch takes it."""
    cpus_per_task: int = 0
    """CPUs for each host hub and its workers; 0 is Slurm's default."""
    memory: str = ""
    """Memory per node, as sbatch takes it."""
    exclusive: bool = False
    extra: str = ""
    """More words for sbatch, quoted as for a shell."""
    python: str = sys.executable
    """Interpreter on the nodes that has cosim."""
    directory: str = ""
    """Where to start on the nodes; "" is where the driver was started."""
    wait: float = 300.0
    """Seconds that the job may wait for its nodes."""
    poll_interval: float = 1.0
    """Seconds between questions about the job."""


class State(NamedTuple):
    """A job's state and the reason for it, as squeue has them; state "" is a job that is not known any more."""

    state: str
    reason: str


class SlurmEngine:
    """Places slots as the tasks of one step; `Slot.host` is the name of a node, or "" for all slots."""

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        self._options = read_options("slurm", SlurmOptions, options)
        self.wait_s = self._options.wait
        self._files = SlotFiles(folder.resolve())
        self._programs = Programs()
        self._job = ""
        self._inside = os.environ.get("SLURM_JOB_ID", "")
        self._left: list[str] = []
        self._asked = 0.0
        self._over: tuple[float, str] | None = None

    # -- start ---------------------------------------------------------------------------------------------------------

    async def start(self, slots: Sequence[Slot]) -> None:
        """Submit the job and wait until it runs, or start the step; see `Engine.start`."""
        hosts = [slot.host for slot in slots if slot.host]
        if hosts and (len(hosts) < len(slots) or len(set(hosts)) < len(hosts)):
            raise UsageError(
                f"engine slurm must have one node of its own for each slot, or leave all to Slurm, not {', '.join(hosts)} for "
                f"{len(slots)} slots",
                code="engine-host",
                where=", ".join(slot.name for slot in slots),
                next_step="name each node once, or name none: --hosts N",
            )
        file = self._write(slots)
        self._left = [slot.name for slot in slots]
        launcher = [self._options.python, "-m", "cosim.engines.slot", "--from", str(file)]
        step = ["srun", "--kill-on-bad-exit=1", "--unbuffered", "--mpi=none", *self._size(len(slots), hosts), *launcher]
        if self._inside:
            guarded = [sys.executable, "-m", "cosim.engines.slot", "--", *step]
            self._programs.start(STEP, guarded, self._job_log, order(b""))
            return
        script = f"#!/bin/sh\nexec {shlex.join(step)}\n"
        answer = await self._run(["sbatch", *self._sbatch_words(len(slots), hosts)], script)
        self._job = answer.strip().partition(";")[0]
        await self._until_running()

    @property
    def _job_log(self) -> Path:
        return self._files.folder / "job.log"

    def _write(self, slots: Sequence[Slot]) -> Path:
        """The files that the tasks read; returns the one with their commands."""
        self._files.make()
        entries = []
        for slot in slots:
            credential = self._files.put_credential(slot)
            words = program(with_credential_file(slot.command, str(credential)), self._options.python)
            places = {"log": str(self._files.log(slot.name)), "exit": str(self._exit(slot.name))}
            entries.append({"name": slot.name, "host": slot.host, "words": words, **places})
        file = self._files.folder / "slots.json"
        write_private(file, json.dumps(entries, indent=1).encode())
        return file

    def _size(self, count: int, hosts: Sequence[str]) -> list[str]:
        words = [f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1"]
        words += [f"--nodelist={','.join(hosts)}"] if hosts else []
        words += [f"--cpus-per-task={self._options.cpus_per_task}"] if self._options.cpus_per_task else []
        return words

    def _sbatch_words(self, count: int, hosts: Sequence[str]) -> list[str]:
        given = self._options
        words = ["--parsable", "--job-name=cosim", f"--output={self._job_log}", "--open-mode=append", "--no-requeue"]
        words += self._size(count, hosts)
        for name, value in (
            ("partition", given.partition),
            ("account", given.account),
            ("qos", given.qos),
            ("time", given.time),
            ("mem", given.memory),
            ("chdir", given.directory),
        ):
            words += [f"--{name}={value}"] if value else []
        return [*words, *(["--exclusive"] if given.exclusive else []), *shlex.split(given.extra)]

    async def _until_running(self) -> None:
        """Wait for the job's nodes, not for ever and not for what will never be."""
        deadline = time.monotonic() + self._options.wait
        delay = 0.1
        while True:
            now = await self._state()
            if now.state not in _WAITING and now.state != UNKNOWN:
                return  # it runs, or has ended already: `poll` says how
            reason = now.reason.partition(",")[0].strip("() ")
            if reason in NEVER or time.monotonic() > deadline:
                await self.stop()
                self._refuse(now, never=reason in NEVER)
            await anyio.sleep(delay)
            delay = min(1.0, 2 * delay)

    def _refuse(self, now: State, never: bool) -> Never:
        error = UsageError if never else PeerError
        raise error(
            f"Slurm must start job {self._job} within {self._options.wait:.0f} s, and says {now.state} "
            f"({now.reason}); the job was cancelled",
            code="engine-pending",
            where=f"Slurm job {self._job}",
            next_step="ask for fewer hosts or another partition (--engine-option partition=NAME); see sinfo and squeue(1), "
            "JOB REASON CODES"
            if never
            else "wait longer: --engine-option wait=SECONDS; see sinfo",
        )

    # -- watching ------------------------------------------------------------------------------------------------------

    async def poll(self) -> list[Exit]:
        """See `Engine.poll`: from exit files at once, from the job's state once a second."""
        ended = self._from_files()
        over = await self._job_over()
        if over is not None and self._left:
            ended += self._from_files()
            ended += [Exit(name, None, f"{over}; {how(None, self._files.log(name))}") for name in self._left]
            self._left = []
        return ended

    def _from_files(self) -> list[Exit]:
        ended = []
        for name in list(self._left):
            try:
                status = int(self._exit(name).read_text())
            except (FileNotFoundError, ValueError):
                continue
            self._left.remove(name)
            status = 128 - status if status > 128 else status
            ended.append(Exit(name, status, how(status, self._files.log(name))))
        return ended

    async def _job_over(self) -> str | None:
        """How the job has ended, a little after it has; None while it lives."""
        if not self._left:
            return None
        if self._over is None and (text := await self._ended()) is not None:
            self._over = time.monotonic(), text
        if self._over is None or time.monotonic() < self._over[0] + FINAL_WAIT_S:
            return None
        return self._over[1]

    async def _ended(self) -> str | None:
        if self._inside:
            steps = self._programs.poll()
            return f"the step of Slurm job {self._inside} has ended: {steps[0].text}" if steps else None
        if not self._job or time.monotonic() < self._asked + self._options.poll_interval:
            return None
        self._asked = time.monotonic()
        state = (await self._state()).state
        if state in _ALIVE or state in _WAITING or state == UNKNOWN:
            return None
        return f"Slurm job {self._job} has ended ({state or 'not known any more'}): {tail(self._job_log)}"

    async def _state(self) -> State:
        words = ["squeue", "--noheader", "--states=all", f"--jobs={self._job}", "--format=%T|%r"]
        try:
            text = await self._run(words)
        except PeerError as error:
            if "Invalid job id" in error.what:
                return State("", "")
            return State(UNKNOWN, error.what)
        state, _, reason = text.strip().partition("|")
        return State(state, reason)

    async def _run(self, words: Sequence[str], stdin: str = "") -> str:
        try:
            with anyio.fail_after(COMMAND_LIMIT_S):
                done = await anyio.run_process(list(words), input=stdin.encode(), check=False, stderr=subprocess.PIPE)
        except FileNotFoundError:
            raise UsageError(
                f"engine slurm must find the program {words[0]!r}, and did not",
                code="engine-program",
                where=words[0],
                next_step="run on a host where Slurm's commands are installed, or choose another --engine",
            ) from None
        except TimeoutError:
            raise PeerError(
                f"{words[0]} must answer within {COMMAND_LIMIT_S:.0f} s",
                code="engine-refused",
                where=words[0],
                next_step="see whether slurmctld runs: scontrol ping",
            ) from None
        if done.returncode:
            raise PeerError(
                f"{words[0]} must succeed, and ended with status {done.returncode}: {done.stderr.decode(errors='replace').strip()}",
                code="engine-refused",
                where=shlex.join(words),
                next_step="see sinfo, and scontrol ping",
            )
        return done.stdout.decode(errors="replace")

    # -- end -----------------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Cancel the job, or end the step, and wait a little for its end; remove the credentials."""
        try:
            await self._programs.stop(STOP_WAIT_S)
            await self._end_job()
        finally:
            self._files.remove_credentials()

    async def _end_job(self) -> None:
        self._from_files()
        if not self._job or (not self._left and await self._finished()):
            return  # while a slot is left the controller is not asked first: that takes time, and what has ended can be cancelled
        await self._cancel()
        deadline = time.monotonic() + STOP_WAIT_S
        while self._left and time.monotonic() < deadline:
            self._from_files()
            await anyio.sleep(0.05)
        if self._left:  # srun would wait for the task of a node that is cut off
            await self._cancel("--full", "--signal=KILL")

    async def _cancel(self, *how: str) -> None:
        """scancel, which fails for a job that has ended meanwhile; what it can't reach has a lease."""
        with contextlib.suppress(PeerError):
            await self._run(["scancel", *how, self._job])

    async def _finished(self) -> bool:
        state = (await self._state()).state
        return state not in _ALIVE and state not in _WAITING and state != UNKNOWN

    def logs(self, name: str) -> str | None:
        """What a slot has written."""
        return self._files.written(name)

    def _exit(self, name: str) -> Path:
        return self._files.folder / f"{name}.exit"
