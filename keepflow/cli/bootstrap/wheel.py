"""The wheel of the keepflow that runs here, so that another host gets exactly this one and not an index's newest.

Built from the files themselves, installed or in a checkout; the same files give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import keepflow
from keepflow import errors
from keepflow.tools.shipped import FOLDERS, shipped_folder

_PACKAGE = Path(keepflow.__file__).parent
_EPOCH = (1980, 1, 1, 0, 0, 0)  #: the oldest time a zip can hold
_INFO = ("METADATA", "WHEEL", "entry_points.txt")
_LICENSES = "licenses/"


def own_wheel() -> tuple[str, bytes]:
    """Return the file name and the bytes of the wheel; raises Unavailable when this keepflow was not installed."""
    try:
        known = distribution("keepflow")
    except PackageNotFoundError:
        raise errors.Unavailable("this keepflow was not installed by pip; name a wheel with --wheel") from None
    info = f"keepflow-{known.version}.dist-info"
    files = dict(sorted([*_code(), *_data(), *((f"{info}/{name}", data) for name, data in _described(known))]))
    record = "".join(f"{name},{_hash(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    return f"keepflow-{known.version}-py3-none-any.whl", _zipped(files)


def _code() -> Iterator[tuple[str, bytes]]:
    for path in _PACKAGE.rglob("*"):
        inside = path.relative_to(_PACKAGE)
        if path.is_file() and "__pycache__" not in inside.parts and inside.parts[0] != "_data":
            yield f"keepflow/{inside}", path.read_bytes()


def _data() -> Iterator[tuple[str, bytes]]:
    for folder in FOLDERS:
        root = shipped_folder(folder)
        for path in root.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"keepflow/_data/{folder}/{path.relative_to(root)}", path.read_bytes()


def _described(known: Distribution) -> Iterator[tuple[str, bytes]]:
    for name in _INFO:
        text = known.read_text(name)
        if text is None:
            raise errors.Unavailable(f"this keepflow has no {name}; install it again, or name a wheel with --wheel")
        yield name, text.encode()
    for file in known.files or ():
        _, found, name = str(file).partition(f".dist-info/{_LICENSES}")
        if found:
            yield f"{_LICENSES}{name}", file.read_binary()


def _hash(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _zipped(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = (0o755 if data.startswith(b"#!") else 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return made.getvalue()
