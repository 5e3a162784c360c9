"""Going back on the host itself: which release a person means, and the deployment that makes it serve again.

Everything needed is on this host's disk: what served, how it was described, and the image, kept by a tag.
"""

from __future__ import annotations

import secrets
import time

from keepflow.agent.deployment import Deployment
from keepflow.agent.instances import History, Served
from keepflow.core.text import quoted
from keepflow.errors import NotFound, Refused

_LIST = "`keepflow agent history SERVICE` lists what can be gone back to"


def choose(history: History, serves: str | None, to: str) -> Served:
    """Return the release to go back to; `serves` is the identity that answers now, `to` an identity's beginning or "".

    Raises Refused `nothing-before`, `rolled-back-already`, `serves-already`, `ambiguous`, and NotFound `not-kept`.
    """
    if history.current is None:
        raise Refused("nothing was deployed here yet, so there is nothing to go back to", code="nothing-before")
    target = _meant(history, to) if to else _before(history, history.current)
    if target.identity == serves and target.container == history.current.container:
        raise Refused(f"{target.identity[:19]} serves already; nothing was done", code="serves-already")
    return target


def asked_here(target: Served, service: str, instance: str, by: str, fence: int) -> Deployment:
    """Return the deployment that makes a release serve again, exactly as it was described when it did."""
    return Deployment(
        id=f"host-{secrets.token_hex(12)}",
        fence=fence,
        nonce=secrets.token_hex(16),
        environment=target.environment,
        service=service,
        instance=instance,
        action="rollback",
        origin=target.origin,
        repository=target.repository,
        image_id=target.image_id,
        digest=target.digest,
        container=target.container,
        by=by,
        asked_at=time.time_ns() // 1000,
    )


def _before(history: History, current: Served) -> Served:
    if current.action == "rollback":
        raise Refused(
            f"{current.identity[:19]} serves, and was itself rolled back to; say where to go: --to DIGEST; {_LIST}",
            code="rolled-back-already",
        )
    if not history.previous:
        raise Refused("nothing served here before, so there is nothing to go back to", code="nothing-before")
    return history.previous[0]


def _meant(history: History, to: str) -> Served:
    wanted = to if to.startswith("sha256:") else f"sha256:{to}"
    known = (history.current, *history.previous)
    found = [one for one in known if one is not None and one.identity.startswith(wanted)]
    if not found:
        raise NotFound(f"no release {quoted(to)} is kept on this host; {_LIST}", code="not-kept")
    if len({one.identity for one in found}) > 1:
        raise Refused(f"{quoted(to)} fits several releases; give more of the digest", code="ambiguous")
    return found[0]
