"""A master's new order key, vouched for by the one before: how pinned keys move on without anybody joining anew.

A rotation is a DSSE envelope signed by both keys. The old key's signature leads whoever pinned it to the new one; the
new key's signature lets whoever pinned that one read what the old one signed. Times are UTC microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from keepflow import errors
from keepflow.core.deploys import canonical
from keepflow.core.plain import loads
from keepflow.crypto import dsse
from keepflow.crypto.keys import PrivateKey, PublicKey

PAYLOAD_TYPE = "application/vnd.keepflow.key-rotation.v1+json"
#: How long orders of the old key are still obeyed: longer than any order lives, so that none on its way is refused.
GRACE = 15 * 60 * 1_000_000


@dataclass(frozen=True, slots=True)
class Rotation:
    """That `new` took the place of `old`."""

    old: PublicKey
    new: PublicKey
    at: int


@dataclass(frozen=True, slots=True)
class Former:
    """A key that was the order key once: its receipts count for good, its orders `until` this moment."""

    key: PublicKey
    until: int


@dataclass(frozen=True, slots=True)
class Pinned:
    """The keys of one master as somebody knows them."""

    current: tuple[PublicKey, ...]
    former: tuple[Former, ...] = ()

    def for_orders(self, now: int) -> tuple[PublicKey, ...]:
        """Return the keys whose orders are obeyed now."""
        return (*self.current, *(former.key for former in self.former if now < former.until))

    @property
    def for_receipts(self) -> tuple[PublicKey, ...]:
        """Return the keys whose receipts count."""
        return (*self.current, *(former.key for former in self.former))

    def follow(self, envelopes: Iterable[Mapping[str, Any]]) -> Pinned:
        """Return the keys after these rotations; one that leads nowhere from here changes nothing.

        Forward only from a current key: whoever steals a key that was replaced can lead nobody away with it. Raises
        BadSignature for an envelope that is no rotation, or that one of its two keys did not sign.
        """
        rotations = [read(envelope) for envelope in envelopes]
        found = self
        while (ahead := next((each for each in rotations if each.old in found.current), None)) is not None:
            kept = tuple(key for key in found.current if key not in (ahead.old, ahead.new))
            former = Former(ahead.old, ahead.at + GRACE)
            found = Pinned((ahead.new, *kept), (*found.former, former))
            rotations.remove(ahead)
        while (back := next((each for each in rotations if found._leads_back(each)), None)) is not None:
            found = replace(found, former=(*found.former, Former(back.old, 0)))
        return found

    def _leads_back(self, rotation: Rotation) -> bool:
        return rotation.new in self.for_receipts and rotation.old not in self.for_receipts


def seal(old: PrivateKey, new: PrivateKey, at: int) -> dict[str, Any]:
    """Return the envelope that lets a new key take the place of an old one."""
    payload = {"version": 1, "old": old.public.text, "new": new.public.text, "at": at}
    return dsse.seal(canonical(payload), PAYLOAD_TYPE, old, new)


def read(envelope: Mapping[str, Any]) -> Rotation:
    """Return what a rotation says, once both of its keys have proven that they signed it; raises BadSignature."""
    payload = envelope.get("payload") if isinstance(envelope, Mapping) else None
    rotation = _parsed(payload)
    for key in (rotation.old, rotation.new):
        dsse.open_(envelope, PAYLOAD_TYPE, key)
    return rotation


def _parsed(payload: object) -> Rotation:
    try:
        fields = loads(dsse.decode(payload))
        if fields["version"] != 1 or not isinstance(fields["at"], int) or isinstance(fields["at"], bool):
            raise ValueError
        rotation = Rotation(PublicKey.parse(fields["old"]), PublicKey.parse(fields["new"]), fields["at"])
    except (ValueError, KeyError, TypeError, AttributeError, errors.UsageError):
        raise errors.BadSignature("this is no rotation of a key") from None
    if rotation.old == rotation.new:
        raise errors.BadSignature("a key cannot take its own place")
    return rotation
