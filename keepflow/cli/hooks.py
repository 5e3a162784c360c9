"""`keepflow project hooks`: the webhooks that the master keeps at forges, and what forges said of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from keepflow.cli import output
from keepflow.cli.client import Client, connect
from keepflow.cli.output import as_json, say
from keepflow.errors import NotFound

_PATIENCE = 30.0  #: seconds in which forges have answered, or are said to be still asked
_LOOK_EVERY = 0.2


@click.command()
@click.option("--again", metavar="PROJECT", help="Ask its forge at once, and say what it answered.")
@click.option("--forget", metavar="PROJECT", help="You removed the hook of a removed project by hand: let go of it.")
@as_json
@click.pass_context
def hooks(ctx: click.Context, again: str | None, forget: str | None, form: str) -> None:
    """List the webhooks that are kept at forges; exit code 1 when one is not as it should be."""
    client = connect()
    for hook in _of(client, again):
        client.post(f"/hooks/{hook['id']}/again")
    for hook in _of(client, forget):
        if not hook["wanted"]:
            client.delete(f"/hooks/{hook['id']}")
    found = settled(client) if again else client.get("/hooks")["items"]
    if form == "json":
        output.print_json({"items": found})
    else:
        rows = [(one["project"], one["forge"], one["state"], one["url"], one["said"]) for one in found]
        output.print_table(("PROJECT", "FORGE", "STATE", "TELLS", "SAID"), rows)
    ctx.exit(1 if any(one["state"] in ("failed", "left") for one in found) else 0)


def settled(client: Client) -> list[dict[str, Any]]:
    """Wait until every forge that is being asked has answered, for half a minute at most, and return what is known."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        found: list[dict[str, Any]] = client.get("/hooks")["items"]
        if time.monotonic() > deadline or all(one["state"] != "due" for one in found):
            return found
        time.sleep(_LOOK_EVERY)


def say_all(found: Sequence[dict[str, Any]]) -> None:
    """Say of every hook how it stands."""
    for one in found:
        what = f"the webhook of {one['project']} at {one['repo']}"
        if one["state"] == "kept":
            say(f"{what} is there")
        elif one["state"] == "due":
            say(f"{what}: {one['forge']} did not answer yet; `keepflow project hooks` shows what becomes of it")
        else:
            say(f"warning: {what} could not be {'set up' if one['wanted'] else 'removed'}: {one['said']}")


def _of(client: Client, project: str | None) -> list[dict[str, Any]]:
    if project is None:
        return []
    found = [one for one in client.get("/hooks")["items"] if one["project"] == project]
    if not found:
        raise NotFound(f"no webhook is kept for {project[:40]!r}; `hook:` in keepflow.yml asks for one", code="no-hook")
    return found
