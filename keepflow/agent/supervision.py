"""What systemd is told: that the agent is ready, that it really gets on, that it is leaving."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from keepflow.core.text import one_line


class Supervisor:
    """Speaks the NOTIFY_SOCKET protocol; without systemd every word goes nowhere."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        env = os.environ if env is None else env
        self._address = env.get("NOTIFY_SOCKET", "")
        watchdog = env.get("WATCHDOG_USEC", "")
        self.every = int(watchdog) / 2e6 if watchdog.isdigit() else 20.0  #: seconds between two signs of life

    def ready(self, status: str) -> None:
        """The agent works."""
        self._say(f"READY=1\nSTATUS={one_line(status)}")

    def status(self, sentence: str) -> None:
        """Something that `systemctl status` shows."""
        self._say(f"STATUS={one_line(sentence)}")

    def alive(self) -> None:
        """The agent got on since the last time; never said out of habit, or a hung agent would look well."""
        self._say("WATCHDOG=1")

    def stopping(self) -> None:
        """The agent is leaving."""
        self._say("STOPPING=1")

    def _say(self, text: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            try:
                connection.sendto(text.encode(), address)
            except OSError:  # systemd is restarting itself: it asks again
                return
