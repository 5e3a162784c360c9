"""`keepflow agent doctor`: the look at a host, printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keepflow.agent.state import State
from keepflow.cli import output
from keepflow.cli.agent import CONFIG, STATE, text_of
from keepflow.core.text import one_line

if TYPE_CHECKING:
    from keepflow.agent.doctor.finding import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


@click.command()
@CONFIG
@STATE
@click.option("--ca-file", type=click.Path(path_type=Path), help="The authority for the master, before joining.")
@click.option("--before-join", is_flag=True, help="Not to have joined yet is fine.")
@click.option("-o", "--output", "form", type=click.Choice(["table", "json"]), default="table", help="What to print.")
@click.option("--json", "form", flag_value="json", help="The same as -o json.")
def doctor(config: Path, root: Path, ca_file: Path | None, before_join: bool, form: str) -> int:
    """Look whether this host can deploy; exit code 1 when something must be mended.

    Nothing that serves is touched: what has to be tried is tried beside it.
    """
    from keepflow.agent.doctor.examination import examine

    found = examine(config, State(root), text_of(ca_file) if ca_file else "", before_join=before_join)
    if form == "json":
        output.print_json({"version": 1, "findings": [finding.to_json() for finding in found]})
    else:
        print_findings(found)
    return 1 if any(finding.state == "failed" for finding in found) else 0


def print_findings(found: Sequence[Finding]) -> None:
    """Print findings as a table, with what to do below each that needs somebody, and the sum on stderr."""
    wide = max(len(finding.subject) for finding in found)
    for finding in found:
        state = click.style(finding.state.ljust(len("warning")), fg=_COLOURS[finding.state])
        click.echo(f"{state}  {finding.subject.ljust(wide)}  {one_line(finding.sentence, 1000)}")
        if finding.mend:
            click.echo(f"{' ' * len('warning')}  {' ' * wide}  → {one_line(finding.mend, 1000)}")
    sums = [(state, sum(finding.state == state for finding in found)) for state in _COLOURS]
    output.say(", ".join(f"{count} {state}" for state, count in sums if count))
