"""One log file with its offsets: what the agent counts, and where that stands in the file after masking.

As long as nothing was masked, the agent's offset is the file's offset. Every piece that came out different is a record
in `<log>.idx`, synced before the piece itself is written. So after any crash the file alone says how far the log got.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from keepflow.core.masking import Masker, Needle, Sought
from keepflow.tools.files import sync_directory

#: Agent offsets [from, to) became file offsets [from, to): the bytes between differ, around them they are equal.
_RECORD = struct.Struct(">QQQQ")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the log that was masked."""

    agent_from: int
    agent_to: int
    file_from: int
    file_to: int


class LogFile:
    """The log of one attempt while it grows; one thread uses it.

    `taken` counts what the agent sent without gaps, `synced` what of it is on the disk for good. After an OSError the
    object is of no more use: close it and open the file again.
    """

    def __init__(self, path: Path, needles: Sought | Iterable[Needle]) -> None:
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._unnamed = not path.exists()  #: whether its name may not outlive a power cut yet
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._masker = Masker(needles)
        self._held = b""
        self._size, self._written = self._recover()
        self.taken = self.synced = self._written
        self._safe = self._size

    @property
    def dirty(self) -> int:
        """How many bytes were written since the last sync."""
        return self._size - self._safe

    @property
    def idle(self) -> bool:
        """Whether everything that was taken is on the disk, so that the file can be closed and opened again."""
        return self.taken == self.synced and not self.dirty

    def append(self, offset: int, data: bytes) -> int:
        """Take bytes at an agent offset and return how many of them were new; a gap takes nothing."""
        known = self.taken - offset
        if known < 0 or known >= len(data):
            return 0
        fresh = data[known:]
        self._write(self._held + fresh, self._masker.feed(fresh))
        self.taken += len(fresh)
        return len(fresh)

    def flush(self) -> None:
        """Write what was held back as the possible beginning of a secret: the log ends here."""
        self._write(self._held, self._masker.flush())

    def sync(self, named: set[Path] | None = None) -> int:
        """Put what was written on the disk for good and return the agent offset that is safe now.

        `named` are directories that were synced just now, after this file was made; its own is added when it is.
        """
        if self._unnamed:
            self._name(set() if named is None else named)
        if self.dirty:
            try:
                os.fdatasync(self._file)
            except OSError:
                os.ftruncate(self._file, self._safe)  # the kernel may have dropped what it could not write
                raise
            self._safe = self._size
        self.synced = self._written
        return self.synced

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def _name(self, named: set[Path]) -> None:
        if self._path.parent not in named:
            sync_directory(self._path.parent)
            named.add(self._path.parent)
        self._unnamed = False

    def _write(self, raw: bytes, shown: bytes) -> None:
        """Write `shown`, which stands for all of `raw` but what the masker still holds back."""
        covered = len(raw) - self._masker.pending
        if shown != raw[:covered]:
            self._record(Piece(self._written, self._written + covered, self._size, self._size + len(shown)))
        at = 0
        while at < len(shown):
            at += os.pwrite(self._file, shown[at:], self._size + at)
        self._held = raw[covered:]
        self._size += len(shown)
        self._written += covered

    def _record(self, piece: Piece) -> None:
        with index_path(self._path).open("ab", buffering=0) as index:
            index.write(_RECORD.pack(piece.agent_from, piece.agent_to, piece.file_from, piece.file_to))
            os.fdatasync(index.fileno())
        sync_directory(self._path.parent)

    def _recover(self) -> tuple[int, int]:
        """Return (file size, agent offset), after cutting off a masked piece that was not written to its end."""
        size = os.fstat(self._file).st_size
        pieces = read_index(self._path)
        whole = [piece for piece in pieces if piece.file_to <= size]
        if len(whole) < len(pieces):
            size = min(size, pieces[len(whole)].file_from)
            os.ftruncate(self._file, size)
            os.truncate(index_path(self._path), len(whole) * _RECORD.size)
        if not self._unnamed:
            os.fsync(self._file)  # written by a process that may have died before its own sync
        return size, agent_offset(whole, size)


def index_path(path: Path) -> Path:
    """Return where the index of a log lies."""
    return path.with_name(f"{path.name}.idx")


def read_index(path: Path) -> list[Piece]:
    """Return the masked pieces of a log, in order."""
    try:
        return _pieces(index_path(path).read_bytes())
    except FileNotFoundError:
        return []


def agent_offset(pieces: list[Piece], file_offset: int) -> int:
    """Return the agent's offset for a file offset outside of every masked piece."""
    before = [piece for piece in pieces if piece.file_to <= file_offset]
    return file_offset + (before[-1].agent_to - before[-1].file_to if before else 0)


def file_offset(pieces: list[Piece], agent_offset: int) -> int:
    """Return the file's offset for an agent offset; inside a masked piece, where the piece begins."""
    shift = 0
    for piece in pieces:
        if agent_offset < piece.agent_to:
            return piece.file_from if agent_offset > piece.agent_from else agent_offset + shift
        shift = piece.file_to - piece.agent_to
    return agent_offset + shift


def _pieces(data: bytes) -> list[Piece]:
    return [Piece(*_RECORD.unpack_from(data, at)) for at in range(0, len(data) - _RECORD.size + 1, _RECORD.size)]
