"""`keepflow canary continue|hold|abort`."""

from __future__ import annotations

import click

from keepflow.cli.client import at, connect
from keepflow.cli.output import say
from keepflow.cli.runs import in_project, the_project


@click.group()
def canary() -> None:
    """Steer a canary that is under way; without a word it goes on by itself."""


_step = click.option("--at", "percent", type=int, help="Only if it is at this step (percent of visitors).")


@canary.command("continue")
@click.argument("environment")
@in_project
@_step
def go_on(environment: str, project: str | None, percent: int | None) -> None:
    """Go on with the next step now; after the last one all visitors get the new release."""
    _say("continue", environment, project, percent)


@canary.command()
@click.argument("environment")
@in_project
@_step
def hold(environment: str, project: str | None, percent: int | None) -> None:
    """Stay at this step until somebody says `continue` or `abort`."""
    _say("hold", environment, project, percent)


@canary.command()
@click.argument("environment")
@in_project
def abort(environment: str, project: str | None) -> None:
    """Give all visitors the old release again."""
    _say("abort", environment, project, None)


def _say(word: str, environment: str, project: str | None, percent: int | None) -> None:
    client = connect()
    place = at("projects", the_project(client, project), "environments", environment, "canary")
    answer = client.post(place, {"word": word, "percent": percent})
    say(f"told {', '.join(answer['hosts'])}: {word}")
