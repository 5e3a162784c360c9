"""`keepflow artifacts RUN [PATH]`: what the jobs of a run kept, and its bytes."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import click

from keepflow import errors
from keepflow.cli import output
from keepflow.cli.client import at, connect
from keepflow.cli.output import as_json, say
from keepflow.cli.runs import in_project, the_run
from keepflow.core.text import did_you_mean, quoted


@click.command()
@click.argument("run")
@click.argument("path", required=False)
@in_project
@click.option("--save", "to", type=click.Path(path_type=Path), help="Where the file goes; - is stdout.")
@as_json
def artifacts(run: str, path: str | None, project: str | None, to: Path | None, form: str) -> None:
    """List what the jobs of a run kept, or with PATH download one file (the newest of that path)."""
    client = connect()
    name, number = the_run(client, run, project)
    address = at("projects", name, "runs", number, "artifacts")
    found = client.get(address)
    if path is None:
        if form == "json":
            return output.print_json(found)
        rows = [
            (one["path"], f"{one['size']:,}", one["job"], _until(one), one["sha256"][:12]) for one in found["items"]
        ]
        output.print_table(("PATH", "BYTES", "JOB", "KEPT", "SHA256"), rows)
        return None
    held = [one for one in found["items"] if one["removed_at"] is None]
    one = next((each for each in reversed(held) if each["path"] == path), None)
    if one is None:
        hint = did_you_mean(path, [each["path"] for each in held])
        raise errors.NotFound(f"{name}#{number} keeps no {quoted(path)}{hint}", code="no-artifact")
    target = to or Path(Path(path).name)
    digest = hashlib.sha256()
    with sys.stdout.buffer if str(target) == "-" else target.open("wb") as file:
        for piece in client.download(f"{address}/{one['id']}"):
            digest.update(piece)
            file.write(piece)
    if digest.hexdigest() != one["sha256"]:
        raise errors.RemoteError(f"{target} is not what was kept: its digest differs", code="bad-digest")
    say(f"{target}: {one['size']:,} bytes, sha256 {one['sha256']}")
    return None


def _until(one: dict[str, str | None]) -> str:
    if one["removed_at"] is not None:
        return "gone"
    return f"until {output.when(one['expires_at'])}" if one["expires_at"] else "as long as its log"
