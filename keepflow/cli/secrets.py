"""`keepflow secret set|ls|rm`: values of projects and environments, typed unseen or read from stdin, never in argv."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from keepflow.cli import output
from keepflow.cli.client import at, connect
from keepflow.cli.output import as_json, say
from keepflow.errors import UsageError

_BOUND = ("branches", "tags", "flows", "environments")


@click.group()
def secret() -> None:
    """Set, list and remove secrets: of a project for its jobs, or of an environment for what is deployed there."""


def _bindings(command: Callable[..., None]) -> Callable[..., None]:
    for option, name, what in (
        ("--environment", "environments", "Only for branches that reach this environment."),
        ("--flow", "flows", "Only for this flow."),
        ("--tag", "tags", "Also for tags that fit this pattern."),
        ("--branch", "branches", "For branches that fit this pattern; default: those that reach an environment."),
    ):
        command = click.option(option, name, multiple=True, help=f"Of a project's secret. {what}")(command)
    return command


@secret.command("set")
@click.argument("owner", metavar="PROJECT[/ENVIRONMENT]")
@click.argument("name")
@_bindings
def put(owner: str, name: str, **bound: tuple[str, ...]) -> None:
    """Give a secret a value: typed unseen, or read from stdin, where one newline at the end is dropped."""
    place, of_project = _place(owner)
    body: dict[str, Any] = {}
    if any(bound.values()):
        if not of_project:
            raise UsageError(
                "--branch, --tag, --flow and --environment are for secrets of a project", code="bad-option"
            )
        body["bound"] = bound
    if sys.stdin.isatty():
        value = str(click.prompt(f"Value of {name}", hide_input=True, err=True))
    else:
        value = _from_stdin(name)
    if not value:
        raise UsageError(f"the value of {name} is empty; give it on stdin", code="bad-value")
    stored = connect().put(at(*place, name), {"value": value, **body})
    what = f"jobs get it: {_told(stored['bound'])}" if of_project else "the next deploy there takes it along"
    say(f"{owner} has {stored['name']} version {stored['version']}; {what}")


@secret.command("ls")
@click.argument("owner", metavar="PROJECT[/ENVIRONMENT]")
@as_json
def ls(owner: str, form: str) -> None:
    """List the names and versions of secrets; nobody is shown a value."""
    place, of_project = _place(owner)
    found = connect().get(at(*place))
    if form == "json":
        return output.print_json(found)
    rows = [
        (one["name"], str(one["version"]), output.when(one["at"]), one["set_by"])
        + ((_told(one["bound"]),) if of_project else ())
        for one in found["items"]
    ]
    output.print_table(("NAME", "VERSION", "SET", "BY", *(("FOR",) if of_project else ())), rows)
    return None


@secret.command("rm")
@click.argument("owner", metavar="PROJECT[/ENVIRONMENT]")
@click.argument("name")
def remove(owner: str, name: str) -> None:
    """Remove a secret; hosts forget an environment's with the next deploy that names it."""
    connect().delete(at(*_place(owner)[0], name))
    say(f"{owner} has no {name} any more")


def _from_stdin(name: str) -> str:
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise UsageError(f"the value of {name} is not UTF-8 text; encode it first", code="bad-value") from None


def _place(owner: str) -> tuple[tuple[str, ...], bool]:
    """Return the address of an owner's secrets, and whether it is a project."""
    project, slash, name = owner.partition("/")
    if not project or bool(slash) != bool(name):
        sentence = "write PROJECT for its jobs, or PROJECT/ENVIRONMENT for what is deployed, like shop/production"
        raise UsageError(f"{owner!r}: {sentence}")
    return (("projects", project, "environments", name, "secrets") if slash else ("projects", project, "secrets")), (
        not slash
    )


def _told(bound: dict[str, list[str]]) -> str:
    """Say in words which runs get a secret."""
    said = [f"{kind} {', '.join(bound[kind])}" for kind in _BOUND if bound[kind]]
    if not bound["branches"] and not bound["environments"]:
        said.insert(0, "branches that reach an environment")
    return "; ".join(said)
