"""kvm-unit-tests' report library: prefixes, PASS/FAIL/INFO/SKIP/ABORT lines, SUMMARY and EXIT (sheet 8.4 of the facts)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nodes.arch.cpu import Cpu
from nodes.software import psci

EXIT_FAILED = 1
EXIT_SKIPPED = 77
EXIT_ABORTED = 127


class Report:
    """Results of one program, written to its console line by line."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        self._prefixes: list[str] = []
        self.tests = 0
        self.failures = 0
        self.skipped = 0

    @contextmanager
    def prefix(self, text: str) -> Iterator[None]:
        """Put ``text: `` in front of the lines within."""
        self._prefixes.append(f"{text}: ")
        try:
            yield
        finally:
            self._prefixes.pop()

    async def _line(self, kind: str, message: str) -> None:
        await self._cpu.console(f"{kind}: {''.join(self._prefixes)}{message}\n")

    async def check(self, passed: bool, message: str) -> None:
        """Count a test and print PASS or FAIL."""
        self.tests += 1
        self.failures += not passed
        await self._line("PASS" if passed else "FAIL", message)

    async def info(self, message: str) -> None:
        """An INFO line."""
        await self._line("INFO", message)

    async def skip(self, message: str) -> None:
        """Count a test that could not run."""
        self.tests += 1
        self.skipped += 1
        await self._line("SKIP", message)

    async def summary(self) -> int:
        """Print SUMMARY; returns the exit code."""
        text = f"SUMMARY: {self.tests} tests"
        if self.failures:
            text += f", {self.failures} unexpected failures"
        if self.skipped:
            text += f", {self.skipped} skipped"
        await self._cpu.console(text + "\n")
        if self.tests and self.tests == self.skipped:
            return EXIT_SKIPPED
        return EXIT_FAILED if self.failures else 0

    async def exit(self, code: int) -> None:
        """Print EXIT with the status that a run script reads, (code << 1) | 1, and power off; doesn't return."""
        await self._cpu.console(f"\nEXIT: STATUS={code << 1 | 1}\n")
        await psci.system_off(self._cpu)

    async def abort(self, message: str) -> None:
        """Print ABORT and SUMMARY, and exit; doesn't return."""
        await self._line("ABORT", message)
        await self.summary()
        await self.exit(EXIT_ABORTED)
