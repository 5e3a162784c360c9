"""The `docker` command against one engine: with an environment of its own, so nothing of a job reaches it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from keepflow import errors
from keepflow.tools.processes import Done, clean_env, failed, run

_SECONDS = 60.0
_KINDS = (
    ("container", ("ls", "--all", "--no-trunc"), "ID", ("rm", "--force", "--volumes")),
    ("network", ("ls", "--no-trunc"), "ID", ("rm",)),
    ("volume", ("ls",), "Name", ("rm", "--force")),
)
_NAMED = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z_.-]*")  #: an identity as engines give them
_TAKEN = b"is already in use by container", b"already exists"


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine by its address; `config` is the directory of the logins that pulls use, None for none."""

    host: str
    config: Path | None = None

    @property
    def env(self) -> dict[str, str]:
        """The whole environment of the command."""
        config = {"DOCKER_CONFIG": str(self.config)} if self.config else {}
        return clean_env(DOCKER_HOST=self.host, HOME="/nonexistent", **config)

    def docker(self, *argv: str, timeout: float = _SECONDS, check: bool = True) -> Done:
        """Run `docker ARGV…` to its end; raises what `tools.processes.run` raises."""
        return run(("docker", *argv), timeout=timeout, env=self.env, check=check)

    def make_once(self, *argv: str) -> bool:
        """Run `docker create …` or the like; False when there is already what bears the name. Raises CommandFailed."""
        done = self.docker(*argv, check=False)
        if done.exit_code and not any(words in done.stderr for words in _TAKEN):
            raise failed(done)
        return done.exit_code == 0

    def image_id(self, reference: str) -> str | None:
        """Return the id of an image that is on the engine, or None. Raises Unavailable when the engine cannot tell."""
        done = self.docker("image", "inspect", "--format", "{{.Id}}", "--", reference, check=False)
        if done.exit_code == 0:
            return done.text.strip()
        if b"o such image" in done.stderr.lower():
            return None
        raise errors.Unavailable(f"the engine does not answer: {_last(done)}", code="engine")

    def remove_labelled(self, labels: Mapping[str, str], spare: Callable[[str], bool] | None = None) -> list[str]:
        """Remove every container, network and volume with all of these labels; returns what was removed.

        A label with the value "" may have any; `spare` is asked with the value of the last label and keeps what it says
        True of. Raises Unavailable when something could not be removed.
        """
        wanted = [part for key, value in labels.items() for part in ("--filter", f"label={key}{value and '='}{value}")]
        asked = list(labels)[-1]
        removed: list[str] = []
        for noun, listing, number, removal in _KINDS:
            shown = f'{{{{.{number}}}}}\t{{{{.Label "{asked}"}}}}'
            told = self.docker(noun, *listing, *wanted, "--format", shown).text.split("\n")
            # Whoever has the engine writes labels as they like: a value of several lines makes lines that name nothing.
            listed = (line.partition("\t") for line in told if "\t" in line)
            found = [one for one, _, value in listed if _NAMED.fullmatch(one) and not (spare and spare(value))]
            if not found:
                continue
            done = self.docker(noun, *removal, *found, check=False)
            if done.exit_code and b"o such" not in done.stderr:
                raise errors.Unavailable(f"a {noun} of a job could not be removed: {_last(done)}", code="engine")
            removed += found
        return removed


def _last(done: Done) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][:400] if lines else f"docker ended with exit code {done.exit_code}"
