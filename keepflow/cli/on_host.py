"""`keepflow agent history, rollback, maintenance`: what a person does on the host, when nobody else may be there."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keepflow.agent.state import State
from keepflow.cli.agent import CONFIG, STATE, agent
from keepflow.cli.entry import person
from keepflow.cli.output import as_json, print_json, print_table, say, short
from keepflow.core.states import Phase
from keepflow.errors import DeployFailed, UsageError

if TYPE_CHECKING:
    from keepflow.agent.deployer import Deployer

_instance = click.option("--instance", default="main", show_default=True, help="Which running copy of the service.")


@agent.command()
@click.argument("service")
@click.option(
    "--to", "to", metavar="DIGEST", default="", help="Where to (default: what served before); a start will do."
)
@_instance
@CONFIG
@STATE
def rollback(service: str, to: str, instance: str, config: Path, root: Path) -> int:
    """Make an earlier release serve again, here and now: no master, registry or running agent is needed."""
    from keepflow.agent import by_hand

    deployer = _deployer(config, root)
    _known(deployer, service)
    outcome = by_hand.roll_back(deployer, service, instance, to, f"host:{person()}", say)
    if outcome.log_tail:
        say(outcome.log_tail)
    click.echo(outcome.sentence)
    if not State(root).holder():
        say("the agent does not run; the master hears of this when it does")
    return 0 if outcome.outcome == Phase.DONE else DeployFailed.exit_code


@agent.command()
@click.argument("service")
@click.argument("wish", type=click.Choice(["on", "off"]))
@_instance
@CONFIG
@STATE
def maintenance(service: str, wish: str, instance: str, config: Path, root: Path) -> None:
    """Show visitors the maintenance page; prints a link that lets a browser look behind it for a day."""
    deployer = _deployer(config, root)
    _known(deployer, service)
    changed, link = deployer.maintenance(service, instance, up=wish == "on")
    if wish == "off":
        return say("visitors see the application" + ("" if changed else "; the page was down already"))
    say("visitors see the maintenance page" + ("" if changed else "; it was up already"))
    say("whoever opens this link looks behind it (it sets a cookie):")
    click.echo(link)
    return None


@agent.command()
@click.argument("service")
@_instance
@CONFIG
@STATE
@as_json
def history(service: str, instance: str, config: Path, root: Path, form: str) -> None:
    """List what serves here and what can be gone back to: hot (runs), cold (image on disk) or gone."""
    deployer = _deployer(config, root)
    _known(deployer, service)
    current = deployer.history(service, instance).current
    rows = [("serves", current.identity, current.since, 0, current.deployment)] if current else []
    rows += [
        (kept.how, kept.identity, kept.since, kept.size, kept.deployment)
        for kept in deployer.inventory(service, instance)
    ]
    if form == "json":
        keys = ("state", "identity", "since", "bytes", "deployment")
        return print_json([dict(zip(keys, row, strict=True)) for row in rows])
    shown = [
        (state, short(identity), _when(since), f"{size / 1e6:.0f} MB" if size else "", deployment)
        for state, identity, since, size, deployment in rows
    ]
    print_table(("STATE", "DIGEST", "SINCE", "SIZE", "DEPLOYMENT"), shown)
    return None


def _deployer(config: Path, root: Path) -> Deployer:
    from keepflow.agent import by_hand
    from keepflow.agent.host_file import HostFile

    if root.exists() and not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        raise UsageError(f"{root} belongs to the agent; run this as the account the agent runs as", code="not-root")
    return by_hand.deployer(State(root), HostFile(config), say)


def _known(deployer: Deployer, service: str) -> None:
    if service not in deployer.policies:
        known = ", ".join(deployer.policies) or "none"
        raise UsageError(f"this host's file names no service {service!r}; there are: {known}", code="unknown-service")


def _when(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
