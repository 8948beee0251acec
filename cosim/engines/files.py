"""Files of the slots of an engine: what they write, and credentials as long as the engine is at work."""

from __future__ import annotations

from pathlib import Path

from cosim.engines.base import Slot, write_private


class SlotFiles:
    """The files of the slots of one engine; `folder` is made by `make`, for its owner only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> None:
        """Make the folder."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def log(self, name: str) -> Path:
        """Where a slot's stdout and stderr go."""
        return self.folder / f"{name}.log"

    def written(self, name: str) -> str | None:
        """What a slot has written so far; None when there is no such file (yet)."""
        try:
            return self.log(name).read_text(errors="replace")
        except FileNotFoundError:
            return None

    def put_credential(self, slot: Slot) -> Path:
        """Write a slot's credential, readable by its owner only; its place."""
        path = self.folder / f"{slot.name}.credential"
        write_private(path, slot.credential)
        return path

    def remove_credentials(self) -> None:
        """Remove what `put_credential` wrote."""
        for file in self.folder.glob("*.credential"):
            file.unlink(missing_ok=True)
