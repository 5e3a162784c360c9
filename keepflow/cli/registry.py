"""`keepflow registry`: an image registry with TLS and two users on this machine."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import click

from keepflow.cli.output import as_json, facts, print_json, say
from keepflow.config.home import Home, default_home
from keepflow.errors import NotFound
from keepflow.tools.registry_plan import Plan

_home = click.option(
    "--home", type=click.Path(path_type=Path), help="Where its keys, passwords and processes are. [KEEPFLOW_HOME]"
)


@click.group()
def registry() -> None:
    """Run an image registry here: TLS, one user who pushes, one who only pulls."""


@registry.command()
@_home
@click.option("--listen", help="IP:PORT. [127.0.0.1:5000]")
@click.option("--name", "names", multiple=True, help="What machines call this host: name or IP; may be repeated.")
@click.option("--data", type=click.Path(path_type=Path), help="Where the images are. [HOME/registry/data]")
@click.option("--push-user", help="Who may push. [push]")
@click.option("--pull-user", help="Who may only pull. [pull]")
@as_json
def up(
    home: Path | None,
    listen: str | None,
    names: tuple[str, ...],
    data: Path | None,
    push_user: str | None,
    pull_user: str | None,
    form: str,
) -> None:
    """Start the registry, or leave it as it is when it runs already; options not given stay as they were."""
    from keepflow.crypto import certificates
    from keepflow.tools.registry_server import RegistryServer, find_programs, only_one

    find_programs()
    root = Home.at(home or default_home())
    root.make()
    old = Plan.saved(root.root)
    plan = Plan(
        home=root.root,
        listen=listen or (old.listen if old else "127.0.0.1:5000"),
        names=names or (old.names if old else ()),
        data=data.absolute() if data else old.data if old else root.root / "registry" / "data",
        push_user=push_user or (old.push_user if old else "push"),
        pull_user=pull_user or (old.pull_user if old else "pull"),
    )
    plan.check()
    with only_one(plan):
        certificate = certificates.ensure(plan.home, "registry", plan.hosts, datetime.now(UTC))
        RegistryServer(plan).up()
    if os.geteuid() == 0:
        say("The registry runs as root here; an account of its own is safer.")
    say(f"Engines trust it once {plan.authority} is on their machine as /etc/docker/certs.d/{plan.called}/ca.crt")
    _tell(
        {
            "address": plan.called,
            "ca_file": str(plan.authority),
            "push_user": plan.push_user,
            "push_password_file": str(plan.password_file("push")),
            "pull_user": plan.pull_user,
            "pull_password_file": str(plan.password_file("pull")),
            "data": str(plan.data),
            "certificate_until": f"{certificate.valid_until:%Y-%m-%d}",
        },
        form,
    )


@registry.command()
@_home
@as_json
def status(home: Path | None, form: str) -> int:
    """Say what runs; exit code 1 when the registry cannot be used."""
    from keepflow.tools.registry_server import RegistryServer

    plan = _plan(home)
    state = RegistryServer(plan).state()
    _tell(
        {
            "address": plan.called,
            "docker-registry": f"process {state.registry}" if state.registry else "down",
            "nginx": f"process {state.front}" if state.front else "down",
            "answers": state.complaint or "yes",
        },
        form,
    )
    return 0 if state.healthy else 1


@registry.command()
@_home
def down(home: Path | None) -> None:
    """Stop the registry; images, keys and passwords stay."""
    from keepflow.tools.registry_server import RegistryServer, only_one

    plan = _plan(home)
    with only_one(plan):
        stopped = RegistryServer(plan).down()
    say("The registry is down." if stopped else "The registry was not running.")


def _plan(home: Path | None) -> Plan:
    root = Home.at(home or default_home()).root
    plan = Plan.saved(root)
    if plan is None:
        raise NotFound(f"{root}: no registry was ever started here; run: keepflow registry up --home {root}")
    return plan


def _tell(told: dict[str, str], form: str) -> None:
    if form == "json":
        print_json(told)
    else:
        facts(list(told.items()))
