"""Watching a run: its log on stdout, and what it waits for on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from keepflow.cli import watching
from keepflow.cli.client import Client, StreamEvent


class Streaming:
    """A client whose stream was recorded; each piece is one connection's worth."""

    def __init__(self, *connections: list[StreamEvent]) -> None:
        self._connections = iter(connections)

    def events(self, _path: str, _last: str) -> Iterator[StreamEvent]:
        yield from next(self._connections)


def state(state: str, sentence: str = "") -> StreamEvent:
    data: dict[str, Any] = {"state": state, "code": "", "sentence": sentence}
    return StreamEvent("state", "", data)


def test_what_a_run_waits_for_is_said_once_and_not_into_its_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it, whoever follows a run that asks a question sees a log that stands still and does not know why."""
    monkeypatch.setattr(watching.time, "sleep", lambda _: None)
    asks = "waits for a release manager: Ship it?"
    end = StreamEvent("end", "", {"state": "succeeded", "code": "", "sentence": ""})
    before = [state("queued", "waits for a free agent"), state("running"), StreamEvent("log", "1:4", {"text": "one\n"})]
    client = Streaming([*before, state("waiting", asks), state("waiting", asks)], [state("waiting", asks), end])
    assert watching.follow_log(cast(Client, client), "shop", 7, None) == "succeeded"
    said = capsys.readouterr()
    assert said.out == "one\n"
    assert said.err == f"shop#7 {asks} (keepflow why shop#7 says more)\n"
