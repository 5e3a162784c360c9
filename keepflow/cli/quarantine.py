"""`keepflow quarantine ls|lift`."""

from __future__ import annotations

import click

from keepflow.cli import output
from keepflow.cli.client import at, connect
from keepflow.cli.output import as_json, say
from keepflow.cli.runs import in_project, the_project


@click.group()
def quarantine() -> None:
    """See and lift what keeps a release from an environment it did badly in."""


@quarantine.command("ls")
@click.argument("environment")
@in_project
@click.option("--all", "everything", is_flag=True, help="Those that were lifted, too.")
@as_json
def ls(environment: str, project: str | None, everything: bool, form: str) -> None:
    """List the releases under quarantine in an environment."""
    client = connect()
    place = at("projects", the_project(client, project), "environments", environment, "quarantine")
    found = client.get(place, lifted="true" if everything else "false")
    if form == "json":
        return output.print_json(found)
    rows = [
        (
            output.when(one["at"]),
            one["identity"],
            one["code"],
            f"by {one['lifted_by']}: {output.subject(one['lifted_why'])}" if one["lifted_at"] else "",
            output.subject(one["sentence"]),
        )
        for one in found["items"]
    ]
    output.print_table(("SINCE", "DIGEST", "CODE", "LIFTED", "REASON"), rows)
    return None


@quarantine.command()
@click.argument("environment")
@click.argument("digest")
@in_project
@click.option("--why", required=True, help="Why it may go there again; kept in the audit log.")
def lift(environment: str, digest: str, project: str | None, why: str) -> None:
    """Let a release go to an environment again."""
    client = connect()
    place = at("projects", the_project(client, project), "environments", environment, "quarantine", "lift")
    client.post(place, {"identity": digest, "why": why})
    say(f"{output.short(digest)} may go to {environment} again")
