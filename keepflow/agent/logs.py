"""The agent's own log: an event and its facts, one line each on stderr, for people or as JSON.

The standard library only: structlog would take a sixth of the memory an idle agent may have.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

_FACTS = "facts"


class Log:
    """Logs events with facts: `log.info("a job was lost", fence=7)`. Facts are data, never part of the event's text."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def info(self, event: str, **facts: Any) -> None:
        """Something happened as it should."""
        self._logger.info(event, extra={_FACTS: facts})

    def warning(self, event: str, **facts: Any) -> None:
        """Something needs a person's look, or came right by itself."""
        self._logger.warning(event, extra={_FACTS: facts})

    def error(self, event: str, **facts: Any) -> None:
        """Something failed, and somebody must do something."""
        self._logger.error(event, extra={_FACTS: facts})

    def broke(self, event: str, error: BaseException | None, **facts: Any) -> None:
        """Something failed that nobody foresaw; with its traceback."""
        self._logger.error(event, exc_info=error, extra={_FACTS: facts})


class Reminder:
    """Warns of what is found at every look, every few seconds, but says the same only once in `every` seconds."""

    def __init__(self, log: Log, every: float = 600.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._every, self._clock = log, every, clock
        self._said: dict[str, float] = {}

    def warning(self, event: str, **facts: Any) -> None:
        """Say it when it is new, or was said long ago."""
        now, same = self._clock(), f"{event} {facts}"
        self._said = {one: at for one, at in self._said.items() if now - at < self._every}
        if same not in self._said:
            self._said[same] = now
            self._log.warning(event, **facts)


def configure(*, as_json: bool) -> None:
    """Send everything that this process logs to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if as_json else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for noisy in ("urllib3", "docker", "websockets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": _when(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, _FACTS, {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=True)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {name}={_plain(value)}" for name, value in getattr(record, _FACTS, {}).items())
        line = f"{_when(record)} {record.levelname.lower():7} {_plain(record.getMessage())}{facts}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _plain(value: object) -> str:
    """Keep text from outside on its line: it must not draw lines, or colours, of its own."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _when(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
