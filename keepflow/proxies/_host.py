"""The host's own nginx, which belongs to a person: keepflow puts one file per instance into its include folder."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from keepflow.errors import CommandFailed, DeployFailed
from keepflow.proxies._access_logs import access_logs
from keepflow.tools import processes
from keepflow.tools.files import write_atomic

_CONF_PATH = re.compile(rb"--conf-path=(\S+)")
_LOG_PATH = re.compile(rb"--http-log-path=([A-Za-z0-9._/@+-]+)")
_INCLUDE = re.compile(r"^(\s*include\s+)([^;]+)(;)", re.MULTILINE)


class HostNginx:
    """An nginx that somebody else configures: `main` is its main file, `reload` makes it read its files again."""

    def __init__(self, include_dir: Path, program: str, reload: Sequence[str], main: Path | None = None) -> None:
        self.include_dir = include_dir
        self.program = program
        self._reload = tuple(reload) or (program, "-s", "reload")
        self._main = main
        self._log: tuple[str, ...] | None = None  #: what this nginx does about logs when nobody says anything

    def place(self, name: str) -> Path:
        """Return where the file of a site lies."""
        return self.include_dir / f"keepflow-{name}.conf"

    def alive(self) -> bool:
        """The host looks after its nginx itself."""
        return True

    def test(self, name: str, text: str | None) -> None:
        """Test a copy of the whole tree with this text in it; raises DeployFailed `proxy-config`."""
        self._on_a_copy(name, text, "-t", "-q")

    def dump(self, name: str, text: str) -> str:
        """Return all that nginx reads when this text is a site, under the names of the real files; raises as `test`."""
        return self._on_a_copy(name, text, "-T")

    def _on_a_copy(self, name: str, text: str | None, *flags: str) -> str:
        main = self._main_file()
        if not self.include_dir.is_dir():
            raise DeployFailed(f"the include folder {self.include_dir} does not exist", code="proxy-config")
        with tempfile.TemporaryDirectory(prefix="keepflow-nginx-") as copy:
            forest = _Forest(main.parent, self.include_dir, Path(copy))
            forest.plant()
            candidate = forest.include / self.place(name).name
            candidate.unlink(missing_ok=True)
            if text is not None:
                write_atomic(candidate, text.encode(), 0o600)
            (Path(copy) / main.name).unlink(missing_ok=True)
            (Path(copy) / main.name).write_text(forest.translated(main.read_text(errors="surrogateescape")))
            try:
                done = processes.run([self.program, *flags, "-c", f"{copy}/{main.name}"], timeout=30)
            except CommandFailed as error:
                words = forest.told_back(error.tail)
                raise DeployFailed(f"nginx refuses the configuration: {words}", code="proxy-config") from error
            return forest.told_back(done.text)

    def reload(self) -> None:
        """Run the reload command; what it says proves nothing."""
        try:
            processes.run(self._reload, timeout=30)
        except CommandFailed as error:
            raise DeployFailed(
                f"the host's nginx cannot be reloaded: {error.message}; is it running?", code="proxy-down"
            ) from error

    def other_logs(self) -> tuple[str, ...]:
        """Return what the main file says about access logs, or what nginx does when it says nothing."""
        try:
            found = access_logs(self._main_file().read_text(errors="replace"))
        except OSError:  # `test` says what is wrong with the main file
            return ()
        if not found:
            return self._default_log()
        return () if "access_log off;" in found else found

    def _default_log(self) -> tuple[str, ...]:
        if self._log is None:
            match = _LOG_PATH.search(processes.run([self.program, "-V"], timeout=30).stderr)
            self._log = (f"access_log {match[1].decode()} combined;",) if match else ()
        return self._log

    def complaints(self) -> str:
        """Where the host's nginx writes is the host's own affair."""
        return f"see its error log; does {self._main_file()} include {self.include_dir}/*.conf?"

    def _main_file(self) -> Path:
        if self._main is None:
            match = _CONF_PATH.search(processes.run([self.program, "-V"], timeout=30).stderr)
            self._main = Path(match[1].decode()) if match else Path("/etc/nginx/nginx.conf")
        return self._main


class _Forest:
    """A copy of a configuration folder made of symbolic links, real only on the way to the include folder."""

    def __init__(self, root: Path, include_dir: Path, copy: Path) -> None:
        self._root = root
        self._include_dir = include_dir
        self._copy = copy
        inside = include_dir.is_relative_to(root)
        self.include = copy / (include_dir.relative_to(root) if inside else "keepflow-include")

    def plant(self) -> None:
        """Make the links."""
        self._plant(self._root, self._copy)
        if not self._include_dir.is_relative_to(self._root):
            self.include.mkdir()
            self._plant(self._include_dir, self.include)

    def translated(self, main: str) -> str:
        """Return the text of the main file with every include of the folders pointing into the copy."""

        def into_copy(match: re.Match[str]) -> str:
            target = match[2].replace(str(self._include_dir), str(self.include))
            if target == match[2] and target.startswith(f"{self._root}/"):
                target = f"{self._copy}{target.removeprefix(str(self._root))}"
            return f"{match[1]}{target}{match[3]}"

        return _INCLUDE.sub(into_copy, main)

    def told_back(self, words: str) -> str:
        """Return what nginx says of the copy as said of the real files."""
        return words.replace(str(self.include), str(self._include_dir)).replace(str(self._copy), str(self._root))

    def _plant(self, source: Path, copy: Path) -> None:
        for entry in source.iterdir():
            if entry == self._include_dir or entry in self._include_dir.parents:
                (copy / entry.name).mkdir()
                self._plant(entry, copy / entry.name)
            else:
                (copy / entry.name).symlink_to(entry)
