"""`keepflow apply` and `keepflow project`."""

from __future__ import annotations

import click

from keepflow.cli import hooks, output
from keepflow.cli.client import connect
from keepflow.cli.output import as_json, say
from keepflow.errors import UsageError


@click.command()
@click.option(
    "-f", "--file", "path", default="keepflow.yml", show_default=True, metavar="FILE", help="The server file."
)
@click.option("--dry-run", is_flag=True, help="Only print the plan.")
@click.option("--yes", is_flag=True, help="Do not ask before doing it.")
@as_json
def apply(path: str, dry_run: bool, yes: bool, form: str) -> None:
    """Make the master equal to keepflow.yml: print the plan, ask, do it. Its content is sent, never its path."""
    from pathlib import Path

    from keepflow.config.desired import desired
    from keepflow.config.server_file import load_server

    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"cannot read {path}: {why}", code="unreadable") from None
    wanted = desired(load_server(text, path)).model_dump(mode="json")
    client = connect()
    planned = client.post("/apply", {"desired": wanted, "dry_run": True})
    for problem in client.post("/apply/check", {"desired": wanted})["problems"] if planned["lines"] else ():
        say(f"warning: {problem}")
    if planned["lines"] and not dry_run:
        _print(planned["lines"], err=True)
        if not yes:
            output.ask_typed(f"Type yes to apply this to {client.server.url}", "yes", "--yes")
        planned = client.post("/apply", {"desired": wanted})
        say(f"applied to {client.server.url}")
        hooks.say_all(hooks.settled(client))
    if form == "json":
        return output.print_json(planned)
    if not planned["lines"]:
        say("nothing to do: the master is equal to the file")
    elif dry_run:
        _print(planned["lines"], err=False)
    return None


def _print(lines: list[dict[str, str]], err: bool) -> None:
    signs = {"add": ("+", "green"), "change": ("~", "yellow"), "remove": ("-", "red")}
    for line in lines:
        sign, colour = signs.get(line["action"], ("?", "white"))
        detail = f": {line['detail']}" if line["detail"] else ""
        click.secho(f"{sign} {line['what']}{detail}", fg=colour, err=err)


@click.group()
def project() -> None:
    """List projects, and the webhooks that are kept for them at forges."""


project.add_command(hooks.hooks)


@project.command("ls")
@as_json
def list_projects(form: str) -> None:
    """List the projects you may see."""
    found = connect().get("/projects")
    if form == "json":
        return output.print_json(found)
    rows = [
        (one["name"], one["forge"], ", ".join(one["environments"]), "file" if one["managed"] else "pages", one["repo"])
        for one in found["items"]
    ]
    output.print_table(("PROJECT", "FORGE", "ENVIRONMENTS", "MANAGED BY", "REPOSITORY"), rows)
    return None
