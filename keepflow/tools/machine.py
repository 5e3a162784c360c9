"""Which machine this is."""

from __future__ import annotations

from pathlib import Path

_MACHINE_ID = Path("/etc/machine-id")


def machine_id() -> str:
    """Return what tells this machine from a copy of its disk, or ""."""
    try:
        return _MACHINE_ID.read_text().strip()
    except OSError:
        return ""
