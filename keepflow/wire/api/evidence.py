"""What is proven about a digest, and the keys that sign it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from keepflow.wire.api.base import Answer, Items, Moment, Request


class OrderKey(Answer):
    """A public key that signs, or once signed, orders and receipts."""

    key: str
    key_id: str
    current: bool
    replaced_at: Moment | None = None
    replaced_by: str = ""  #: the person who had the next one made


class Evidence(Answer):
    """What is proven about a digest: the envelopes as they were signed, and the keys that signed them.

    There is nothing in it that no signature covers, and one way to write it down, so that one changed byte is found.
    """

    version: Literal[1] = 1
    digest: str
    keys: list[str]
    receipts: list[dict[str, Any]]  #: DSSE envelopes of in-toto statements, oldest first
    orders: list[dict[str, Any]]  #: DSSE envelopes of the orders by which the digest was deployed, oldest first


class Countersigned(Request):
    """A provenance of the master's with the signature of a key that it does not hold, and that key."""

    envelope: dict[str, Any]
    key: str = Field(max_length=80)


class OrderKeys(Items):
    """A list of order keys, the one in use first."""

    items: list[OrderKey]
