"""`keepflow deliveries` and `keepflow replay`: what forges told, what was decided, and once more."""

from __future__ import annotations

from typing import Any

import click

from keepflow.cli import output
from keepflow.cli.client import at, connect
from keepflow.cli.output import as_json, say
from keepflow.cli.runs import in_project, the_project


@click.command()
@in_project
@click.option("-n", "--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="How many.")
@click.option("--before", type=int, help="The `next` of the page before this one.")
@as_json
def deliveries(project: str | None, form: str, **filters: Any) -> None:
    """List what forges (and the clock, and the sweep) told, newest first, with what was decided."""
    client = connect()
    page = client.get(at("projects", the_project(client, project), "deliveries"), **filters)
    if form == "json":
        return output.print_json(page)
    rows = [
        (
            str(found["id"]),
            output.when(found["received_at"]),
            found["forge"],
            found["event_name"],
            _ref(found),
            output.subject(found["decision"]["sentence"] if found["decision"] else "intake has not looked yet"),
        )
        for found in page["items"]
    ]
    output.print_table(("ID", "WHEN", "FROM", "EVENT", "REF", "DECISION"), rows)
    if page["next"]:
        say(f"more: --before {page['next']}")
    return None


def _ref(found: dict[str, Any]) -> str:
    ref = str(found["event"]["ref"]) if found["event"] else ""
    return output.subject(ref.removeprefix("refs/heads/").removeprefix("refs/tags/"))


@click.command()
@click.argument("delivery", type=int)
@in_project
def replay(delivery: int, project: str | None) -> None:
    """Handle a delivery (its ID in `keepflow deliveries`) once more, as a new one."""
    client = connect()
    name = the_project(client, project)
    made = client.post(at("projects", name, "deliveries", delivery, "replay"))
    click.echo(
        f"delivery {made['delivery']} is delivery {delivery} once more; `keepflow deliveries` shows its decision"
    )
