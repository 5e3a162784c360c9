"""What must not be seen of a job outside this host: the secrets it was lent, in every spelling."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from keepflow import errors
from keepflow.core.masking import Needle, Sought, mask, needles_for
from keepflow.tools.needles import sought
from keepflow.wire.messages import RunJob


def needles_of(order: RunJob, secrets: Iterable[str] = ()) -> Sought:
    """Return what to look for in a job's log, names and sentences: the opened `secrets` and all else it was lent.

    A text too short to be a secret is left out.
    """
    lent = [text for login in order.logins for text in (login.password, f"{login.username}:{login.password}")]
    found: list[Needle] = []
    for secret in dict.fromkeys([*order.mask, *secrets, *lent, order.token]):
        with contextlib.suppress(errors.SecretTooShort):
            found += needles_for(secret.encode(errors="replace"))
    return sought(found)


def masked(text: str, needles: Sought | Iterable[Needle]) -> str:
    """Return one whole text without secrets."""
    return mask(text.encode(errors="replace"), needles).decode(errors="replace")
