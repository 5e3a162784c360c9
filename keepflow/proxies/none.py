"""No proxy: whoever stands in front follows the flag directory by itself, and probes go straight to the slot."""

from __future__ import annotations

from pathlib import Path

from keepflow.core import names
from keepflow.errors import DeployFailed
from keepflow.ports import Answer, Site, Traffic, Visit
from keepflow.proxies._flags import Flags, traffic_of, words_of
from keepflow.tools.http_get import NoAnswer, get


class NoProxy:
    """Fits `ports.Proxy`: keeps the state on disk, and its front door is the slot that the state names."""

    def __init__(self, switches: Path) -> None:
        self._switches = switches

    def ensure(self, site: Site) -> None:
        """Make sure there is a first state."""
        flags = self._flags(site)
        if flags.read() is None and not flags.place.exists():
            flags.put(("maint",))

    def state(self, site: Site) -> Traffic | None:
        """Read the state in force from disk, or None when nothing was ever switched."""
        return traffic_of(self._flags(site).read())

    def switch(self, site: Site, traffic: Traffic) -> None:
        """Put a state in force by one rename; raises DeployFailed `switch-failed` with the old one in force."""
        try:
            self._flags(site).put(words_of(traffic))
        except (OSError, ValueError) as error:
            raise DeployFailed(f"the switch to {traffic} was not made: {error}", code="switch-failed") from error

    def probe(self, site: Site, path: str, timeout: float, slot: str | None = None) -> Answer:
        """Ask a slot (the one in force); under maintenance the answer is 503, as whoever follows the flags gives it.

        Raises DeployFailed `proxy-down` when nobody answers.
        """
        state = self.state(site)
        if state is not None and state.maintenance:
            return Answer(503, None, None)
        if state is None or state.slot is None:
            raise DeployFailed("no slot serves", code="proxy-down")
        asked = slot or state.slot
        address = site.blue if asked == "blue" else site.green
        host, _, port = address.partition(":")
        headers = {"Host": site.server_name, "User-Agent": "keepflow-probe"}
        try:
            response = get(host, int(port), path, headers, timeout=timeout)
        except NoAnswer as error:
            raise DeployFailed(f"the slot in force does not answer: {error}", code="proxy-down") from None
        return Answer(response.status, asked, address, response.body)

    def visits(self, site: Site, position: int) -> tuple[list[Visit], int]:  # noqa: ARG002 - part of the port
        """Nothing: visitors do not come by here."""
        return [], position

    def sees_flags(self, site: Site) -> bool:
        """There is nothing that could fail to see them."""
        return self.state(site) is not None

    def remove(self, site: Site) -> None:
        """Take the state away; gone already is fine."""
        self._flags(site).remove()

    def _flags(self, site: Site) -> Flags:
        return Flags(self._switches, names.prefix(site.service, site.instance))
