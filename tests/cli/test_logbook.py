"""The master's own log: one line per event, whatever is logged, and nothing that acts on a terminal."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from keepflow.cli import logbook
from tests.hostile import NAMES

_NASTY = ("\x1b[2J\x1b]0;owned\x07", "a\nb", "a\r\nfake: line", "\u202egnp.exe", "\x00", "\x9b31m", *NAMES)


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("as_json", [True, False])
def test_t33_every_event_is_one_line_and_no_control_character_gets_through(as_json: bool) -> None:
    stream = io.StringIO()
    logbook.configure(stream, as_json=as_json)
    log = structlog.get_logger("test")
    for text in _NASTY:
        log.warning("something happened", branch=text, many=[text])
        log.warning(text)
        logging.getLogger("library").warning("said %s", text)
    lines = stream.getvalue().split("\n")
    assert lines.pop() == ""
    assert len(lines) == 3 * len(_NASTY)
    for line in lines:
        assert line.isprintable(), repr(line)
        if as_json:
            json.loads(line)


def test_an_exception_keeps_the_lines_of_its_traceback_on_a_terminal_only() -> None:
    for as_json, more in ((True, 1), (False, 3)):
        stream = io.StringIO()
        logbook.configure(stream, as_json=as_json)
        try:
            raise ValueError("\x1b[31mred")
        except ValueError:
            structlog.get_logger("test").exception("it broke")
        assert len(stream.getvalue().strip().split("\n")) >= more
        assert "\x1b[31mred" not in stream.getvalue()


def test_noisy_libraries_are_quiet() -> None:
    stream = io.StringIO()
    logbook.configure(stream, as_json=True)
    logging.getLogger("apscheduler.executors.default").info("a job ran")
    logging.getLogger("uvicorn.error").info("a connection")
    assert stream.getvalue() == ""
