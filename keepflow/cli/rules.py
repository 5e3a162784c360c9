"""`keepflow tested, rejected, lock, unlock, gate, acknowledge`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from keepflow.cli import output
from keepflow.cli.client import at, connect
from keepflow.cli.output import as_json, say
from keepflow.cli.runs import in_project, the_project, the_run


def _about(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which deployment is meant."""
    for option in (
        click.option("--run", "run", metavar="RUN", help="The run whose release it is (else: what serves there)."),
        click.option("--in", "environment", required=True, metavar="ENVIRONMENT", help="Where it was looked at."),
        in_project,
    ):
        command = option(command)
    return command


@click.command()
@_about
@click.option("--note", default="", help="What was tested; kept with the mark.")
@as_json
def tested(environment: str, run: str | None, project: str | None, note: str, form: str) -> None:
    """Mark what serves in an environment (or the release of a run that served there) as tested."""
    _mark("tested", environment, run, project, note, form)


@click.command()
@_about
@click.option("--note", required=True, help="What is wrong with it; everybody reads it.")
@as_json
def rejected(environment: str, run: str | None, project: str | None, note: str, form: str) -> None:
    """Reject what serves in an environment: it is not promoted until you say `tested`."""
    _mark("rejected", environment, run, project, note, form)


def _mark(verdict: str, environment: str, run: str | None, project: str | None, note: str, form: str) -> None:
    client = connect()
    name, number = the_run(client, run, project) if run else (the_project(client, project), None)
    body = {"verdict": verdict, "note": note, "run": number}
    made = client.post(at("projects", name, "environments", environment, "marks"), body)
    if form == "json":
        return output.print_json(made)
    click.echo(f"{made['person']} marked {output.short(made['identity'])} {verdict} in {name}/{environment}")
    return None


@click.command()
@click.argument("environment")
@click.option("-m", "--why", required=True, metavar="TEXT", help="Why; everybody who waits reads it.")
@in_project
@as_json
def lock(environment: str, why: str, project: str | None, form: str) -> None:
    """Lock an environment: nothing new is deployed to it until you or an admin unlock it."""
    client = connect()
    name = the_project(client, project)
    held = client.put(at("projects", name, "environments", environment, "lock"), {"why": why})
    if form == "json":
        return output.print_json(held)
    click.echo(f"{name}/{environment} is locked by {held['locked_by']}: {held['locked_why']}")
    return None


@click.command()
@click.argument("environment")
@in_project
def unlock(environment: str, project: str | None) -> None:
    """Unlock an environment that you hold (or, as an admin, one that anybody holds)."""
    client = connect()
    name = the_project(client, project)
    client.delete(at("projects", name, "environments", environment, "lock"))
    click.echo(f"{name}/{environment} is unlocked")


@click.command()
@click.argument("environment")
@click.option("--open", "source", metavar="RUN", help="Open it anew for the release of this run, or this digest.")
@in_project
@as_json
def gate(environment: str, source: str | None, project: str | None, form: str) -> None:
    """Show which release waits at an environment's gate, or open it anew for one that lapsed or was superseded."""
    client = connect()
    name = the_project(client, project)
    if source is None:
        places = client.get(at("projects", name, "environments"))["items"]
        found = next((place["gate"] for place in places if place["name"] == environment), None)
    else:
        found = client.post(at("projects", name, "environments", environment, "gate"), {"source": source})
    if form == "json":
        return output.print_json({"gate": found})
    if found is None:
        click.echo(f"nothing waits at the gate of {name}/{environment}")
    else:
        click.echo(f"{found['sentence']}; lapses {output.when(found['lapses_at'])}")
    return None


@click.command()
@click.argument("number", required=False, type=int)
@in_project
@as_json
def acknowledge(number: int | None, project: str | None, form: str) -> None:
    """List what was deployed outside the rules, or say (NUMBER) that you have followed it up."""
    client = connect()
    name = the_project(client, project)
    place = at("projects", name, "break-glass")
    if number is not None:
        done = client.post(f"{place}/{number}/acknowledge")
        say(f"{done['actor']}'s deployment to {name}/{done['environment']} is followed up by {done['acknowledged_by']}")
        return output.print_json(done) if form == "json" else None
    found = client.get(place)
    if form == "json":
        return output.print_json(found)
    rows = [
        (str(one["number"]), output.when(one["at"]), one["environment"], one["actor"], output.subject(one["reason"]))
        for one in found["items"]
    ]
    output.print_table(("NUMBER", "WHEN", "ENVIRONMENT", "BY", "REASON"), rows)
    return None
