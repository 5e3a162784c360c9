"""Which machine this is."""

from __future__ import annotations

from pathlib import Path

_MACHINE_ID = Path("/etc/machine-id")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def machine_id() -> str:
    """Return what tells this machine from a copy of its disk, or ""."""
    try:
        return _MACHINE_ID.read_text().strip()
    except OSError:
        return ""


def boot_id() -> str:
    """Return what tells this start of the machine from every other, or ""."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
