"""The key that signs orders and receipts, and its replacement."""

from __future__ import annotations

from keepflow.crypto.keys import PublicKey
from keepflow.engine import keyring
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.state import caller, web
from keepflow.wire import api

endpoints = Endpoints("Keys")


@endpoints.add("GET", "/keys", "enter", api.OrderKeys)
def order_keys() -> api.OrderKeys:
    """List the public keys that signed orders and receipts, the one in use first."""
    return _keys()


@endpoints.add("POST", "/keys/rotations", "administer", api.OrderKeys, status=201)
def rotate_order_key() -> api.OrderKeys:
    """Sign with a new key from now on, and tell every agent; the answer lists it first."""
    keyring.rotate(web().master, caller().user.name, web().now())
    return _keys()


def _keys() -> api.OrderKeys:
    ring = web().master.keys
    current = ring.current.public
    former = [
        api.OrderKey(
            key=done.old_key,
            key_id=PublicKey.parse(done.old_key).key_id,
            current=False,
            replaced_at=done.at,
            replaced_by=done.made_by,
        )
        for done in reversed(ring.history)
    ]
    return api.OrderKeys(items=[api.OrderKey(key=current.text, key_id=current.key_id, current=True), *former])
