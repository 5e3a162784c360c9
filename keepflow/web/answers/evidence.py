"""What is proven about a release: the file that is given out, and the lines pages show of it."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.core.releases import is_digest
from keepflow.core.text import one_line
from keepflow.engine import evidence as evidence_of
from keepflow.engine.context import Master
from keepflow.errors import NotFound
from keepflow.store import deployments, receipts, releases
from keepflow.store.projects import Project
from keepflow.store.receipts import StoredReceipt
from keepflow.wire import api

_ORDERS = 50  #: newest orders that are given out with a digest


def evidence(conn: Connection, master: Master, project: Project, digest: str) -> api.Evidence:
    """Return everything signed about a digest; raises NotFound for one that no run of the project pushed."""
    if not is_digest(digest) or releases.by_digest(conn, project.id, digest) is None:
        raise NotFound(f"{project.name} has no pushed release with digest {one_line(digest, 80)}", code="no-release")
    proofs = [receipt.envelope for receipt in receipts.of_digest(conn, project.id, digest)]
    orders = deployments.ordered(conn, project.id, digest, _ORDERS)
    used = {signature["keyid"] for envelope in (*proofs, *orders) for signature in envelope["signatures"]}
    keys = [key.text for key in evidence_of.keys_of(conn, master, project, digest) if key.key_id in used]
    return api.Evidence(digest=digest, keys=keys, receipts=proofs, orders=orders)


def lines(conn: Connection, project: Project, digest: str, limit: int = 8) -> list[StoredReceipt]:
    """List the newest receipts of a digest for a page, newest first; what only one agent has is known by none."""
    return receipts.of_digest(conn, project.id, digest)[::-1][:limit]
