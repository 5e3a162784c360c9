"""Webhook calls, and what was decided about each."""

from __future__ import annotations

from typing import Any

from keepflow.wire.api.base import Answer, Moment


class Delivery(Answer):
    """One webhook call and what was decided about it. `decision` is null until intake has looked."""

    id: int
    delivery: str
    forge: str
    event_name: str
    word: str
    handled: bool
    event: dict[str, Any] | None
    decision: dict[str, Any] | None
    received_at: Moment
    handled_at: Moment | None


class Replayed(Answer):
    """The delivery that was made of another one."""

    delivery: int


class DeliveryPage(Answer):
    """Deliveries, newest first."""

    items: list[Delivery]
    next: int | None
