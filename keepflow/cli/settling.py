"""`keepflow settle`: say how a deployment ended when nobody knows."""

from __future__ import annotations

import click

from keepflow.cli import output
from keepflow.cli.client import at, connect
from keepflow.cli.output import as_json, say
from keepflow.cli.runs import in_project, the_project


@click.command()
@click.argument("environment")
@in_project
@click.option("--serves", type=click.Choice(["new", "old"]), required=True, help="What you saw serving there.")
@click.option("--why", required=True, help="How you know; kept in the audit log and shown with the deployment.")
@click.option("--host", default="", metavar="AGENT", help="Which host, when the environment has several.")
@click.option("--yes", is_flag=True, help="Do not ask for the environment's name.")
@as_json
def settle(environment: str, project: str | None, serves: str, why: str, host: str, yes: bool, form: str) -> None:
    """End a deployment whose end is unknown, by looking at what serves.

    Nothing is sent to the host, nothing counts as tested by it, and whatever waited behind it goes on. It is refused
    when the host itself says otherwise.
    """
    client = connect()
    place = at("projects", the_project(client, project), "environments", environment, "settle")
    if not yes:
        output.ask_typed(f"Type {environment} to say that the {serves} release serves there", environment, "--yes")
    settled = client.post(place, {"serves": serves, "why": why, "host": host})
    if form == "json":
        return output.print_json(settled)
    say(f"{environment} on {settled['host']}: {settled['phase']}; {output.subject(settled['reason'])}")
    return None
