"""`keepflow keys`: the key that signs orders and receipts."""

from __future__ import annotations

import click

from keepflow.cli import output
from keepflow.cli.client import connect
from keepflow.cli.output import as_json, say


@click.group()
def keys() -> None:
    """List and replace the key that signs orders to agents, and receipts."""


@keys.command("ls")
@as_json
def list_keys(form: str) -> None:
    """List the public keys, the one in use first; `verify --key` and `receipts_from` take them."""
    _show(connect().get("/keys"), form)


@keys.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def rotate(yes: bool, form: str) -> None:
    """Sign with a new key from now on.

    Agents learn it at once, or when they come back, on the word of the old key; nobody joins anew. For 15 minutes they
    obey both. What the old key signed stays good as a receipt. Back up KEEPFLOW_HOME afterwards: a copy from before has
    a key that no agent obeys any more. Join tokens that were not used are void.
    """
    if not yes:
        output.ask_typed("Type rotate to make a new order key", "rotate", "--yes")
    _show(connect().post("/keys/rotations"), form)
    say("back up KEEPFLOW_HOME now: the order.key in older copies is not obeyed any more")


def _show(found: dict[str, list[dict[str, str]]], form: str) -> None:
    if form == "json":
        return output.print_json(found)
    rows = [
        (each["key"], "in use" if each["current"] else f"until {output.when(each['replaced_at'])}", each["replaced_by"])
        for each in found["items"]
    ]
    output.print_table(("KEY", "STATE", "REPLACED BY"), rows)
    return None
