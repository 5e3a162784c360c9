"""The front of a host as its file says: made when the first service needs it, which may be long after the start."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

from keepflow import errors
from keepflow.agent.host_file import HostFile
from keepflow.config.agent_file import AgentFile
from keepflow.ports import Answer, Proxy, Site, Traffic, Visit
from keepflow.proxies.none import NoProxy


class Front:
    """Fits `ports.Proxy`. `root` holds `sw` (flags, pages) and the own nginx.

    Every method raises UsageError `front-hidden` when nginx's workers could not read what is in `root`.
    """

    def __init__(self, host_file: HostFile, root: Path) -> None:
        self._host_file, self._root = host_file, root
        self._making = threading.Lock()
        self._made: Proxy | None = None

    def proxy(self) -> Proxy:
        """Return who sends traffic; `nginx:` in the host's file is in force as it was when this was first asked."""
        with self._making:
            if self._made is None:
                self._made = _proxy(self._host_file.now(), self._root)
            return self._made

    def ensure(self, site: Site) -> None:
        """Make the front of an instance exist and run."""
        self.proxy().ensure(site)

    def state(self, site: Site) -> Traffic | None:
        """Read the state in force from disk."""
        return self.proxy().state(site)

    def switch(self, site: Site, traffic: Traffic) -> None:
        """Put a state in force."""
        self.proxy().switch(site, traffic)

    def probe(self, site: Site, path: str, timeout: float, slot: str | None = None) -> Answer:
        """Ask through the front door."""
        return self.proxy().probe(site, path, timeout, slot)

    def visits(self, site: Site, position: int) -> tuple[list[Visit], int]:
        """Return what visitors were answered."""
        return self.proxy().visits(site, position)

    def sees_flags(self, site: Site) -> bool:
        """Say whether the front obeys the flags."""
        return self.proxy().sees_flags(site)

    def remove(self, site: Site) -> None:
        """Take the front of an instance away."""
        self.proxy().remove(site)


def _proxy(file: AgentFile, root: Path) -> Proxy:
    switches, nginx = root / "sw", file.nginx
    if nginx.mode == "none":
        return NoProxy(switches)
    from keepflow.proxies.nginx import Nginx  # its templates are 2 MB that an agent without services never needs

    if os.geteuid() == 0:
        refuse_hidden(root)
    if nginx.mode == "host":
        return Nginx.host(switches, nginx.include_dir, str(nginx.binary))
    return Nginx.own(switches, root / "nginx", str(nginx.binary))


def refuse_hidden(root: Path) -> None:
    """Refuse a place that nginx's workers, which are not root, cannot pass through: they would obey no flag."""
    for place in (root.resolve(), *root.resolve().parents):
        if place.exists() and not place.stat().st_mode & stat.S_IXOTH:
            raise errors.UsageError(
                f"nginx must be able to pass through {place} (chmod o+x); or name another place with KEEPFLOW_FRONT",
                code="front-hidden",
            )
