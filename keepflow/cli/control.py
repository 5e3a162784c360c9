"""`keepflow rerun, pause, resume`."""

from __future__ import annotations

import click

from keepflow.cli import output, watching
from keepflow.cli.client import at, connect
from keepflow.cli.output import as_json, say
from keepflow.cli.runs import ended, in_project, the_project, the_run


@click.command()
@click.argument("run")
@in_project
@click.option("--failed", is_flag=True, help="Only what did not succeed, and what comes after that.")
@click.option("--from", "job", metavar="JOB", help="This job, what comes after it, and what did not succeed.")
@click.option("-w", "--wait", is_flag=True, help="Print the log and reflect the result in the exit code.")
@click.option("--timeout", type=float, metavar="SECONDS", help="With -w: stop waiting after this (exit code 6).")
def rerun(run: str, project: str | None, failed: bool, job: str | None, wait: bool, timeout: float | None) -> int:
    """Run an ended run again, as a new run of the same commit."""
    if failed and job:
        raise click.UsageError("--failed and --from are two ways; choose one")
    client = connect()
    name, number = the_run(client, run, project)
    started = client.post(at("projects", name, "runs", number, "rerun"), {"failed": failed, "job": job})
    again = f"{name}#{started['run']}"
    say(f"started {again}  {started['url']}")
    if not wait:
        click.echo(again)
        return 0
    with watching.detaching(again):
        state = watching.follow_log(client, name, started["run"], timeout)
    return ended(again, state)


@click.command()
@click.argument("project", required=False)
@click.option("-m", "--why", help="Everybody who waits will read it.")
@as_json
def pause(project: str | None, why: str | None, form: str) -> None:
    """Let nothing new of a project begin (with -m), or say whether it is paused."""
    client = connect()
    name = the_project(client, project)
    path = at("projects", name, "pause")
    answer = client.get(path) if why is None else client.post(path, {"why": why})
    if form == "json":
        return output.print_json(answer)
    click.echo(answer["sentence"])
    return None


@click.command()
@click.argument("project", required=False)
def resume(project: str | None) -> None:
    """Let a paused project go on."""
    client = connect()
    name = the_project(client, project)
    client.post(at("projects", name, "resume"))
    click.echo(f"{name} goes on")
