"""`keepflow storage`: where the master's disk goes, and what is let go of by rule."""

from __future__ import annotations

from typing import Any

import click

from keepflow.cli import output
from keepflow.cli.client import connect
from keepflow.cli.output import as_json


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def storage(context: click.Context, form: str) -> None:
    """Show what logs, artifacts and workspaces take, what is free, and the rule by which they are let go of."""
    if context.invoked_subcommand is not None:
        return None
    found = connect().get("/storage")
    if form == "json":
        return output.print_json(found)
    rows = [(name, f"{found[name] / 1e6:,.1f} MB") for name in ("logs", "artifacts", "workspaces", "free", "total")]
    output.print_table(("WHAT", "SIZE"), rows)
    click.echo(f"kept: {_rule(found)}")
    return None


@storage.command()
@click.option("--dry-run", is_flag=True, help="Only show what goes, and remove nothing.")
@as_json
def prune(dry_run: bool, form: str) -> None:
    """Let go now of what the rule gives up; the master does it every hour."""
    found = connect().post("/storage/prune", {"dry_run": dry_run})
    if form == "json":
        return output.print_json(found)
    output.print_table(("RUN", "SIZE"), [(one["run"], f"{one['bytes'] / 1e6:,.1f} MB") for one in found["items"]])
    taken, done = sum(one["bytes"] for one in found["items"]) / 1e6, "are" if found["applied"] else "would be"
    click.echo(f"logs and artifacts of {len(found['items'])} runs, {taken:,.1f} MB, {done} let go of")
    if found["forgotten"]:
        click.echo(f"{found['forgotten']} runs {done} forgotten")
    return None


def _rule(found: dict[str, Any]) -> str:
    sentences = (
        (found["runs"], f"the newest {found['runs']} runs of each flow"),
        (found["days"], f"runs of the last {found['days']} days"),
        (found["budget"], f"at most {found['budget'] / 1e9:,.1f} GB"),
        (found["forget"], f"runs themselves for {found['forget']} days"),
    )
    limits = [sentence for value, sentence in sentences if value]
    return " and, of these, ".join(limits) if limits else "everything; `retention:` in keepflow.yml"
