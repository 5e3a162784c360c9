"""Notices and channels as the API and the pages show them."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.engine import channels
from keepflow.engine.context import Master
from keepflow.store import notices
from keepflow.store.notices import StoredNotice
from keepflow.wire import api


def page(conn: Connection, query: api.NoticesQuery) -> api.NoticePage:
    """Return a page of notices, newest first."""
    found = notices.page(conn, query.before, query.limit, query.state)
    return api.NoticePage(
        items=[_notice(one) for one in found], next=found[-1].id if len(found) == query.limit else None
    )


def all_channels(conn: Connection, master: Master) -> api.Channels:
    """Return every channel with its trouble."""
    trouble = {one.channel: one.error for one in notices.troubled(conn)}
    return api.Channels(
        items=[
            api.Channel(
                name=one.name,
                kind=one.kind,
                recipients=list(one.channel.recipients),
                on=sorted(one.on),
                projects=sorted(one.projects),
                trouble=trouble.get(one.name, ""),
            )
            for one in channels.listeners(conn, master)
        ]
    )


def _notice(stored: StoredNotice) -> api.Notice:
    told = stored.notice
    return api.Notice(
        id=stored.id,
        channel=stored.channel,
        recipient=stored.recipient,
        delivery=stored.delivery,
        word=told.word,
        title=told.title,
        url=told.url,
        state=stored.state,
        tries=stored.tries,
        error=stored.error,
        made_at=stored.made_at,
        next_at=stored.next_at,
        ended_at=stored.ended_at,
    )
