"""An nginx of keepflow's own: its files, its process, and how a process is known to be that one.

It is started detached and outlives the agent; a later agent finds it by its pid file and by its command line, which
names this very configuration, so a reused process number is never taken for it.
"""

from __future__ import annotations

import os
import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from keepflow.errors import CommandFailed, DeployFailed
from keepflow.proxies._reload import becomes_true
from keepflow.proxies._sites import render_own
from keepflow.tools import processes
from keepflow.tools.files import write_atomic

_LOG_TAIL = 4096
_VERSION = re.compile(rb"nginx/([0-9]+)\.([0-9]+)\.([0-9]+)")


class OwnNginx:
    """An nginx whose whole tree lies in `home` (0755, its workers pass through it)."""

    def __init__(self, home: Path, program: str) -> None:
        self.home = home
        self.program = program
        self._conf = home / "nginx.conf"
        self._log = home / "error.log"
        self._log_seen = 0

    def place(self, name: str) -> Path:
        """Return where the file of a site lies."""
        return self.home / "sites" / f"{name}.conf"

    def alive(self) -> bool:
        """Say whether the master runs."""
        return self.pid() is not None

    def test(self, name: str, text: str | None) -> None:
        """Test the whole tree with this text in it; raises DeployFailed `proxy-config` with nginx's words."""
        self._lay_out()
        with tempfile.TemporaryDirectory(dir=self.home, prefix=".candidate-") as candidate:
            sites = Path(candidate) / "sites"
            sites.mkdir()
            for site in self.place(name).parent.glob("*.conf"):
                (sites / site.name).symlink_to(site)
            (sites / f"{name}.conf").unlink(missing_ok=True)
            if text is not None:
                write_atomic(sites / f"{name}.conf", text.encode(), 0o600)
            (Path(candidate) / "nginx.conf").write_bytes(self._conf.read_bytes())
            try:
                self._run("-t", "-q", "-c", f"{candidate}/nginx.conf")
            except CommandFailed as error:
                words = error.tail.replace(candidate, str(self.home))
                raise DeployFailed(f"nginx refuses the configuration: {words}", code="proxy-config") from error

    def reload(self) -> None:
        """Make the running nginx read its files again, or start it."""
        self._log_seen = self._log.stat().st_size if self._log.exists() else 0
        running = self.pid()
        if running is None:
            self._start()
        else:
            os.kill(running, signal.SIGHUP)

    def other_logs(self) -> tuple[str, ...]:
        """Nobody reads an access log here, so there is none."""
        return ()

    def complaints(self) -> str:
        """Return the last errors nginx wrote since the last reload was asked for."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(self._log_seen, self._log.stat().st_size - _LOG_TAIL))
                lines = file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(line for line in lines if "[emerg]" in line or "[crit]" in line or "[alert]" in line)

    def pid(self) -> int | None:
        """Return the process of the running master, or None."""
        try:
            pid = int((self.home / "nginx.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if self._is_master(pid) else None

    def stop(self) -> None:
        """End this nginx and its workers; down already is fine."""
        if (running := self.pid()) is not None:
            with suppress(ProcessLookupError):
                os.kill(running, signal.SIGTERM)
            becomes_true(lambda: self.pid() is None)

    def _lay_out(self) -> None:
        for directory in (self.home, self.home / "sites"):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o755)
        text = render_own(self.home, self._version()).encode()
        if not self._conf.exists() or self._conf.read_bytes() != text:
            write_atomic(self._conf, text)

    def _version(self) -> tuple[int, ...]:
        match = _VERSION.search(self._run("-v").stderr)
        return tuple(int(part) for part in match.groups()) if match else (0, 0, 0)

    def _start(self) -> None:
        """Start it in a session of its own; it returns once its sockets are bound, or says why they are not."""
        self._end_orphans()
        try:
            self._run("-c", str(self._conf))
        except CommandFailed as error:
            raise DeployFailed(f"nginx does not start: {error.tail}", code="proxy-down") from error
        if not becomes_true(lambda: self.pid() is not None):
            raise DeployFailed(f"nginx started but wrote no pid file; see {self._log}", code="proxy-down")

    def _run(self, *argv: str) -> processes.Done:
        return processes.run([self.program, "-p", str(self.home), *argv], timeout=30)

    def _is_master(self, pid: int) -> bool:
        title = _title(pid)
        return title.startswith("nginx: master process") and f"-c {self._conf}" in title

    def _end_orphans(self) -> None:
        """End workers whose master was killed: they hold the listening sockets, and nobody will ever tell them."""
        orphans = list(self._workers())
        for pid in orphans:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)
        becomes_true(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))

    def _workers(self) -> Iterator[int]:
        """Find worker processes that write this very error log."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _title(int(entry.name)).startswith("nginx: worker process"):
                with suppress(OSError):
                    if any(fd.readlink() == self._log for fd in (entry / "fd").iterdir()):
                        yield int(entry.name)


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
