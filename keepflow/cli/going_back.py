"""`keepflow rollback`: back to a release that served before, after a look at what goes away."""

from __future__ import annotations

import uuid
from typing import Any

import click

from keepflow import errors
from keepflow.cli import output
from keepflow.cli.client import at, connect
from keepflow.cli.delivery import say_change, watch
from keepflow.cli.output import as_json, say
from keepflow.cli.runs import in_project, the_project


@click.command()
@click.argument("release", required=False, default="")
@click.option("--to", "environment", required=True, metavar="ENVIRONMENT", help="Which environment goes back.")
@in_project
@click.option("--reason", default="", help="What is wrong; kept with the deployment.")
@click.option("-w", "--wait", is_flag=True, help="Tell the phases and reflect the outcome in the exit code.")
@click.option("--timeout", type=float, metavar="SECONDS", help="With -w: stop waiting after this (exit code 6).")
@click.option("--yes", is_flag=True, help="Do not ask for the environment's name.")
@click.option("--dry-run", is_flag=True, help="Only show what would change and how ready the host is.")
@as_json
def rollback(
    release: str,
    environment: str,
    project: str | None,
    reason: str,
    wait: bool,
    timeout: float | None,
    yes: bool,
    dry_run: bool,
    form: str,
) -> int:
    """Go back to what served before, or to RELEASE (a run or a digest) if that served there once."""
    client = connect()
    name = the_project(client, project)
    place = at("projects", name, "environments", environment)
    preview = client.get(f"{place}/rollback", source=release)
    _show(preview)
    if dry_run:
        if form == "json":
            output.print_json(preview)
        return 0 if preview["allowed"] else errors.Refused.exit_code
    if not preview["allowed"]:
        unmet = [guard for guard in preview["guards"] if not guard["met"]]
        raise errors.Refused("; ".join(guard["sentence"] for guard in unmet), code=unmet[0]["code"])
    if not yes:
        output.ask_typed(f"Type {environment} to roll back", environment, "--yes")
    body = {"source": preview["identity"], "reason": reason, "key": uuid.uuid4().hex}
    deployment = client.post(f"{place}/rollbacks", body)
    say(f"{environment} goes back to {name}#{preview['run']} as run {name}#{deployment['run']}")
    return watch(client, name, deployment, wait, timeout, form)


def _show(preview: dict[str, Any]) -> None:
    before = output.short(preview["serving"]) or "nothing"
    target = f"{preview['project']}/{preview['environment']}"
    say(f"{target}: {before} → {output.short(preview['identity']) or 'nothing'}")
    say(f"rollback is {preview['ready']['sentence']}")
    say_change(preview["coming"], preview["leaving"], preview["changes"])
    for guard in preview["guards"]:
        say(f"  {'✓' if guard['met'] else '✗'} {guard['sentence']}")
