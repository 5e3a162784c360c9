"""`keepflow drift`: how what serves differs from what was deployed, and what to do about it."""

from __future__ import annotations

import uuid

import click

from keepflow import errors
from keepflow.cli import output
from keepflow.cli.client import at, connect
from keepflow.cli.delivery import watch
from keepflow.cli.output import as_json, say
from keepflow.cli.runs import in_project, the_project


@click.command()
@click.argument("environment")
@in_project
@click.option("--adopt", "way", flag_value="adopt", help="Expect what serves from now on; nothing is touched.")
@click.option("--restore", "way", flag_value="restore", help="Have what was deployed serve again.")
@click.option("--reason", default="", help="Kept with the deployment.")
@click.option("-w", "--wait", is_flag=True, help="Tell the phases and reflect the outcome in the exit code.")
@click.option("--timeout", type=float, metavar="SECONDS", help="With -w: stop waiting after this (exit code 6).")
@click.option("--yes", is_flag=True, help="Do not ask for the environment's name.")
@as_json
def drift(
    environment: str,
    project: str | None,
    way: str | None,
    reason: str,
    wait: bool,
    timeout: float | None,
    yes: bool,
    form: str,
) -> int:
    """Say how what serves differs from what was deployed (exit code 1 if it does), then adopt it or restore."""
    client = connect()
    name = the_project(client, project)
    place = at("projects", name, "environments", environment, "drift")
    found = client.get(place)
    if way is None and form == "json":
        output.print_json(found)
    elif way is None or form == "table":
        rows = [
            (host["agent"], one["what"], one["expected"], one["found"])
            for host in found["hosts"]
            for one in host["differences"]
        ]
        if rows:
            output.print_table(("HOST", "WHAT", "EXPECTED", "FOUND"), rows)
        else:
            say(f"{environment} serves what was deployed")
    if way is None:
        return 1 if found["drifts"] else 0
    if not found["drifts"]:
        raise errors.Refused(f"{environment} serves what was deployed; there is no drift", code="no-drift")
    if not yes:
        output.ask_typed(f"Type {environment} to {way}", environment, "--yes")
    deployment = client.post(place, {"way": way, "reason": reason, "key": uuid.uuid4().hex})
    return watch(client, name, deployment, wait, timeout, form)
