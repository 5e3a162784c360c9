"""Makes git's objects of plain bytes: blobs, trees, one commit, and the pack they travel in, without any process.

What is packed was left by somebody's job. Nothing of it is read by name here, and no attribute, filter or
configuration of a repository has a say: a file goes as the bytes it has.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

FILE, EXECUTABLE, LINK, TREE = b"100644", b"100755", b"120000", b"40000"
_HEAD = b"PACK" + (2).to_bytes(4, "big")
_PIECE = 1024 * 1024
_KINDS = {b"commit": 1, b"tree": 2, b"blob": 3}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or link of a tree: its mode as git writes it, and the id of its bytes."""

    mode: bytes
    sha: str


def object_id(kind: bytes, data: bytes) -> str:
    """Return the id of an object (SHA-1)."""
    return hashlib.sha1(b"%b %d\0%b" % (kind, len(data), data), usedforsecurity=False).hexdigest()


def trees(entries: Mapping[bytes, Entry]) -> tuple[str, dict[str, bytes]]:
    """Return the id of the tree of these files by path, and the bytes of all trees in it by id."""
    nested: dict[bytes, dict[bytes, Entry]] = {b"": {}}
    for path, entry in entries.items():
        folder, _, name = path.rpartition(b"/")
        nested.setdefault(folder, {})[name] = entry
        while folder and b"/" in folder:
            folder = folder.rpartition(b"/")[0]
            nested.setdefault(folder, {})
    made: dict[str, bytes] = {}
    for folder in sorted(filter(None, nested), key=lambda name: name.count(b"/"), reverse=True):
        above, _, name = folder.rpartition(b"/")
        nested.setdefault(above, {})[name] = Entry(TREE, _add(made, nested[folder]))
    return _add(made, nested[b""]), made


def _add(made: dict[str, bytes], names: Mapping[bytes, Entry]) -> str:
    # Git sorts a folder as if its name ended with a slash.
    lines = sorted(names.items(), key=lambda one: one[0] + (b"/" if one[1].mode == TREE else b""))
    data = b"".join(b"%b %b\0%b" % (entry.mode, name, bytes.fromhex(entry.sha)) for name, entry in lines)
    sha = object_id(b"tree", data)
    made[sha] = data
    return sha


def commit(tree: str, parent: str, message: str, by: tuple[str, str]) -> bytes:
    """Return the bytes of a commit; `by` is name and e-mail. The same facts always give the same commit."""
    who = f"{by[0]} <{by[1]}> 0 +0000"
    return f"tree {tree}\nparent {parent}\nauthor {who}\ncommitter {who}\n\n{message}".encode()


class Pack:
    """Writes a pack into a file that can be read and written, from where it stands. `close` makes it whole."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._begin = file.tell()
        self._count = 0
        file.write(_HEAD + (0).to_bytes(4, "big"))

    @property
    def size(self) -> int:
        """How many bytes it has so far."""
        return self._file.tell() - self._begin

    def add(self, kind: bytes, data: bytes) -> None:
        """Add one object; adding it twice is the caller's fault."""
        size, first = len(data) >> 4, _KINDS[kind] << 4 | len(data) & 15
        head = bytearray()
        while size:
            head.append(first | 0x80)
            first, size = size & 0x7F, size >> 7
        head.append(first)
        self._file.write(bytes(head) + zlib.compress(data, 1))
        self._count += 1

    def close(self) -> None:
        """Write how many objects there are, and its own sum at the end; the file stays open."""
        self._file.seek(self._begin + len(_HEAD))
        self._file.write(self._count.to_bytes(4, "big"))
        self._file.seek(self._begin)
        own = hashlib.sha1(usedforsecurity=False)
        while piece := self._file.read(_PIECE):
            own.update(piece)
        self._file.write(own.digest())
