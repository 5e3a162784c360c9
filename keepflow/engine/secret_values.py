"""What a secret may be called and may hold, whoever's it is; nothing here repeats a value."""

from __future__ import annotations

import re

from keepflow import errors
from keepflow.core.text import quoted
from keepflow.store.secrets import StoredSecret

LARGEST = 64 * 1024  #: bytes of one value
MOST = 256 * 1024  #: bytes of all values of an owner together: they travel in one frame
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


def check_name(name: str, pattern: re.Pattern[str], letters: str) -> None:
    """Raise UsageError `bad-name` unless a name fits; `letters` says in words what may be in one."""
    if not pattern.fullmatch(name):
        sentence = f"not a name: {letters} (at most 100), no digit first, like DATABASE_URL"
        raise errors.UsageError(f"{quoted(name[:100])} is {sentence}", code="bad-name")


def raw(name: str, value: str) -> bytes:
    """Return the bytes of a value; raises UsageError for what could not be handed on as it is."""
    try:
        found = value.encode()
    except UnicodeEncodeError:
        raise errors.UsageError(f"the value of {name} is not UTF-8 text; encode it first", code="bad-value") from None
    if not found:
        raise errors.UsageError(f"the value of {name} is empty", code="bad-value")
    if b"\0" in found:
        raise errors.UsageError(f"the value of {name} holds a NUL byte; encode it first", code="bad-value")
    if len(found) > LARGEST:
        sentence = f"the value of {name} is {len(found)} bytes; {LARGEST} is the most"
        raise errors.UsageError(sentence, code="secrets-too-large")
    return found


def check_room(owner: str, known: list[StoredSecret], name: str, size: int) -> None:
    """Raise UsageError `secrets-too-large` when all secrets of an owner would be too many bytes with a new value."""
    total = size + sum(one.size for one in known if one.name != name)
    if total > MOST:
        sentence = f"all secrets of {owner} together would be {total} bytes; {MOST} is the most"
        raise errors.UsageError(sentence, code="secrets-too-large")


def next_version(known: list[StoredSecret], name: str) -> int:
    """Return the version of a name's next value."""
    return next((one.version for one in known if one.name == name), 0) + 1
