"""`keepflow storage`: where the master's disk goes."""

from __future__ import annotations

import click

from keepflow.cli import output
from keepflow.cli.client import connect
from keepflow.cli.output import as_json


@click.command()
@as_json
def storage(form: str) -> None:
    """Show what logs, artifacts and workspaces take, what is free, and the rule by which they are let go of."""
    found = connect().get("/storage")
    if form == "json":
        return output.print_json(found)
    rows = [(name, f"{found[name] / 1e6:,.1f} MB") for name in ("logs", "artifacts", "workspaces", "free", "total")]
    output.print_table(("WHAT", "SIZE"), rows)
    limits = [
        sentence
        for key, sentence in (
            ("runs", f"the newest {found['runs']} runs of each flow"),
            ("days", f"runs of the last {found['days']} days"),
        )
        if found[key]
    ]
    click.echo(f"kept: {' and, of these, '.join(limits) if limits else 'everything; `retention:` in keepflow.yml'}")
    return None
