"""`keepflow notices`: who is told what, and whether it got there."""

from __future__ import annotations

import click

from keepflow.cli import output
from keepflow.cli.client import at, connect
from keepflow.cli.output import as_json, say
from keepflow.errors import RemoteError


@click.group()
def notices() -> None:
    """List what channels were told, and try a channel out."""


@notices.command("ls")
@click.option("--state", type=click.Choice(["waiting", "sent", "failed"]), help="Only those in this state.")
@click.option("-n", "--limit", type=click.IntRange(1, 200), default=30, show_default=True)
@as_json
def list_notices(state: str | None, limit: int, form: str) -> None:
    """List notices, newest first; `failed` ones were given up after a day."""
    found = connect().get("/notices", limit=limit, **({"state": state} if state else {}))
    if form == "json":
        return output.print_json(found)
    rows = [
        (output.when(one["made_at"]), one["state"], one["channel"], one["recipient"], one["title"], one["error"])
        for one in found["items"]
    ]
    output.print_table(("WHEN", "STATE", "CHANNEL", "RECIPIENT", "WHAT", "PROBLEM"), rows)
    return None


@notices.command()
@as_json
def channels(form: str) -> None:
    """List the channels of keepflow.yml."""
    found = connect().get("/channels")
    if form == "json":
        return output.print_json(found)
    rows = [
        (one["name"], one["kind"], ", ".join(one["recipients"]), ", ".join(one["on"]), one["trouble"] or "none")
        for one in found["items"]
    ]
    output.print_table(("CHANNEL", "KIND", "RECIPIENTS", "TOLD OF", "TROUBLE"), rows)
    return None


@notices.command()
@click.argument("channel")
@as_json
def test(channel: str, form: str) -> None:
    """Tell every recipient of a channel that it works; exit code 1 when one could not be told."""
    found = connect().post(at("channels", channel, "test"))
    if form == "json":
        output.print_json(found)
    else:
        output.print_table(
            ("RECIPIENT", "PROBLEM"), [(one["recipient"], one["problem"] or "none") for one in found["items"]]
        )
    if missed := [one["recipient"] for one in found["items"] if one["problem"]]:
        raise RemoteError(f"not told: {', '.join(missed)}", code="not-told")
    say("everybody was told")
