"""nginx as the front: slots chosen per request by flag files, so that a switch is one rename and never a reload."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from keepflow.core import names
from keepflow.errors import DeployFailed
from keepflow.ports import Answer, Site, Traffic, Visit
from keepflow.proxies._flags import CANARY, Flags, traffic_of, words_of
from keepflow.proxies._host import HostNginx
from keepflow.proxies._own import OwnNginx
from keepflow.proxies._reload import Tree, becomes_true, replace
from keepflow.proxies._sites import Rendered, render, variable_prefix
from keepflow.proxies._visits import Record
from keepflow.tools.files import write_atomic
from keepflow.tools.http_get import NoAnswer, Response, get, split_listen
from keepflow.tools.shipped import shipped

_STATE_PATH = "/__keepflow/state"
_STATE_SECONDS = 2.0
_PAGES = ("maintenance.html", "50x.html")


class Nginx:
    """Fits `ports.Proxy`. `switches` is the folder of flags and pages: 0755 on every level, for nginx's workers."""

    def __init__(self, switches: Path, tree: Tree) -> None:
        self._switches = switches
        self._tree = tree

    @classmethod
    def own(cls, switches: Path, home: Path, program: str = "nginx") -> Nginx:
        """Use an nginx of keepflow's own whose files lie in `home`; it outlives the agent."""
        return cls(switches, OwnNginx(home, program))

    @classmethod
    def host(
        cls,
        switches: Path,
        include_dir: Path,
        program: str = "nginx",
        reload: Sequence[str] = (),
        main: Path | None = None,
    ) -> Nginx:
        """Use the host's nginx: generated files in `include_dir`; `reload` is its argv (default `nginx -s reload`)."""
        return cls(switches, HostNginx(include_dir, program, reload, main))

    def ensure(self, site: Site) -> None:
        """Make the front of an instance exist and run; an unchanged one that answers costs one request.

        Raises DeployFailed `proxy-…`.
        """
        self._lay_pages()
        rendered = self._rendered(site)
        if self._tree.alive() and self._answers_with(site, rendered):
            return
        with self._lock():
            flags = self._flags(site)
            fresh = flags.read() is None and not self._tree.place(_name(site)).exists()
            if fresh:
                flags.put(("maint",))
            replace(self._tree, _name(site), rendered.text, lambda: self._answers_with(site, rendered))
            if fresh:
                self._try_every_flag(site)

    def state(self, site: Site) -> Traffic | None:
        """Read the state in force from disk, or None when nothing was ever switched."""
        return traffic_of(self._flags(site).read())

    def switch(self, site: Site, traffic: Traffic) -> None:
        """Put a state in force by one rename; raises DeployFailed `switch-failed` with the old one in force."""
        flags = self._flags(site)
        try:
            if traffic.counted and "count" not in (flags.read() or ()):
                self._record(site).clear()
            flags.put(words_of(traffic))
        except (OSError, ValueError) as error:
            raise DeployFailed(f"the switch to {traffic} was not made: {error}", code="switch-failed") from error

    def probe(self, site: Site, path: str, timeout: float, slot: str | None = None) -> Answer:
        """Ask the front door as a visitor would, with the probe token; raises DeployFailed `proxy-down`."""
        response = self._ask(site, path, timeout, {"X-Keepflow-Slot": slot} if slot else {})
        said = response.headers.get("x-keepflow-addr", "")
        address = said.replace(" : ", ", ").split(", ")[-1] or None
        answering = {site.blue: "blue", site.green: "green"}.get(address or "")
        return Answer(response.status, answering, address, response.body)

    def visits(self, site: Site, position: int) -> tuple[list[Visit], int]:
        """Read on in the record that nginx writes while the state in force is `counted`."""
        return self._record(site).read(position, {site.blue: "blue", site.green: "green"})

    def sees_flags(self, site: Site) -> bool:
        """Say whether the running nginx obeys the state on disk right now."""
        state = self.state(site)
        return state is not None and self._obeys(site, state)

    def remove(self, site: Site) -> None:
        """Take the front of an instance away; gone already is fine."""
        with self._lock():
            if self._tree.place(_name(site)).exists():
                replace(self._tree, _name(site), None, lambda: not self._answers_at_all(site))
            self._flags(site).remove()
            self._record(site).path.unlink(missing_ok=True)

    def _record(self, site: Site) -> Record:
        return Record(self._switches / "visits" / f"{_name(site)}.log")

    def _flags(self, site: Site) -> Flags:
        return Flags(self._switches, _name(site))

    def _rendered(self, site: Site) -> Rendered:
        flags, pages = self._flags(site).current, self._switches / "pages"
        return render(site, flags, pages, self._record(site).path, self._tree.other_logs())

    def _answers_with(self, site: Site, rendered: Rendered) -> bool:
        """Say whether nginx uses this very text, and the file for its next start holds it too."""
        place = self._tree.place(_name(site))
        try:
            on_disk = place.read_text(encoding="utf-8")
            said = self._ask(site, _STATE_PATH, _STATE_SECONDS)
        except (FileNotFoundError, DeployFailed):
            return False
        return on_disk == rendered.text and f"generation={rendered.generation} ".encode() in said.body

    def _answers_at_all(self, site: Site) -> bool:
        try:
            return b"generation=" in self._ask(site, _STATE_PATH, _STATE_SECONDS).body
        except DeployFailed:
            return False

    def _obeys(self, site: Site, state: Traffic) -> bool:
        prefix = variable_prefix(site.service, site.instance)
        net = "_net" if state.net else ""
        slots = names.SLOTS if state.canary else (state.slot or "any",)
        canary = next((word for word in words_of(state) if word in CANARY), "-")
        rest = f"maint={int(state.maintenance)} count={int(state.counted)} canary={canary}"
        try:
            said = self._ask(site, _STATE_PATH, _STATE_SECONDS)
        except DeployFailed:
            return False
        return any(f" slot={prefix}_{slot}{net} {rest}\n".encode() in said.body for slot in slots)

    def _try_every_flag(self, site: Site) -> None:
        """See once, before the first visitor, that nginx notices each flag come and go."""
        for state in (Traffic("blue", maintenance=True), Traffic("green", net=True, maintenance=True)):
            self.switch(site, state)
            if not self.sees_flags(site):
                raise self._blind(site)
        self._flags(site).put(("maint",))
        if not becomes_true(lambda: self.sees_flags(site)):
            raise self._blind(site)

    def _blind(self, site: Site) -> DeployFailed:
        return DeployFailed(
            f"nginx does not see the flags in {self._flags(site).current}: "
            "its workers need r-x on every folder of that path, and no open_file_cache",
            code="proxy-blind",
        )

    def _ask(self, site: Site, path: str, timeout: float, more: Mapping[str, str] = MappingProxyType({})) -> Response:
        host, port = split_listen(site.listen)
        headers = {"Host": site.server_name, "User-Agent": "keepflow-probe", "X-Keepflow-Probe": site.probe_token}
        headers |= more
        try:
            return get(
                host, port, path, headers, timeout=timeout, tls_name=site.server_name if site.certificate else None
            )
        except NoAnswer as error:
            raise DeployFailed(f"the front door does not answer: {error}", code="proxy-down") from None

    def _lay_pages(self) -> None:
        """Put the two pages where nginx finds them; a person may change them, so they are written only once."""
        pages, visits = self._switches / "pages", self._switches / "visits"
        missing = [name for name in _PAGES if not (pages / name).exists()]
        if not missing and visits.is_dir():
            return
        for directory in (self._switches, pages, visits):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o755)
        for name in missing:
            write_atomic(pages / name, shipped("nginx", name).read_bytes(), 0o644)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Let one process and one thread at a time change nginx's files."""
        with (self._switches / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _name(site: Site) -> str:
    return names.prefix(site.service, site.instance)
