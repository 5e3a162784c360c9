"""`keepflow runs, show, logs, run, cancel, why`."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from keepflow import errors
from keepflow.cli import output, watching
from keepflow.cli.client import Client, at, connect
from keepflow.cli.output import as_json, say
from keepflow.core.names import is_name

in_project = click.option("--project", "-P", metavar="NAME", help="The project (needed when there are several).")


def the_project(client: Client, name: str | None) -> str:
    """Return the project meant: the one named, or the only one there is."""
    if name:
        return name
    known = [found["name"] for found in client.get("/projects")["items"]]
    if len(known) != 1:
        listed = ", ".join(known) or "none you may see"
        raise errors.UsageError(f"name the project with --project; there are: {listed}", code="which-project")
    return str(known[0])


def the_run(client: Client, text: str, project: str | None) -> tuple[str, int]:
    """Return the run meant by `12`, `#12`, `keepwork#12` or `last`."""
    match = re.fullmatch(r"(?:(?P<project>[a-z0-9][a-z0-9-]*)?#)?(?P<number>\d+)", text)
    if match:
        return the_project(client, match["project"] or project), int(match["number"])
    if text != "last":
        raise errors.UsageError(f"{text[:60]!r} is no run; write 12, keepwork#12 or last", code="which-run")
    found = client.get(at("projects", project, "runs") if project else "/runs", limit=1)["items"]
    if not found:
        raise errors.NotFound("there is no run yet", code="no-run")
    return str(found[0]["project"]), int(found[0]["number"])


def _name(run: dict[str, Any]) -> str:
    return f"{run['project']}#{run['number']}"


def _branch(run: dict[str, Any]) -> str:
    return str(run["ref"]).removeprefix("refs/heads/").removeprefix("refs/tags/")


@click.command()
@in_project
@click.option("--flow", metavar="NAME", help="Only runs of this flow.")
@click.option("--state", metavar="STATE", help="Only runs in this state.")
@click.option("--branch", metavar="BRANCH", help="Only runs of this branch.")
@click.option("-n", "--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="How many.")
@click.option("--before", type=int, help="The `next` of the page before this one.")
@as_json
def runs(project: str | None, form: str, **filters: Any) -> None:
    """List runs, newest first."""
    client = connect()
    page = client.get(at("projects", project, "runs") if project else "/runs", **filters)
    if form == "json":
        return output.print_json(page)
    rows = [
        (
            _name(run),
            run["state"],
            run["flow"],
            _branch(run),
            run["sha"][:7],
            output.when(run["created_at"]),
            output.took(run["started_at"], run["finished_at"]),
            output.subject(run["message"]),
        )
        for run in page["items"]
    ]
    output.print_table(("RUN", "STATE", "FLOW", "BRANCH", "COMMIT", "WHEN", "TOOK", "MESSAGE"), rows)
    if page["next"]:
        say(f"more: --before {page['next']}")
    return None


@click.command()
@click.argument("run")
@in_project
@as_json
def show(run: str, project: str | None, form: str) -> None:
    """Show one run (12, keepwork#12 or last) with its jobs and steps."""
    client = connect()
    name, number = the_run(client, run, project)
    found = client.get(at("projects", name, "runs", number))
    if form == "json":
        return output.print_json(found)
    output.facts(
        [
            ("run", _name(found)),
            ("state", found["state"]),
            ("reason", found["reason"]),
            ("flow", f"{found['flow']} at {_branch(found)} {found['sha'][:7]}"),
            ("message", output.subject(found["message"])),
            ("by", found["actor"]),
            ("why", found["why"]),
            ("approved", found["approved_by"] or ""),
            ("forge", _forge(found)),
            ("when", output.when(found["created_at"])),
            ("took", output.took(found["started_at"], found["finished_at"])),
        ]
    )
    several = len({job["level"] for job in found["jobs"]}) < len(found["jobs"])
    for level, beside in itertools.groupby(
        sorted(found["jobs"], key=lambda job: job["level"]), lambda job: job["level"]
    ):
        if several:
            click.echo(f"  level {level}")
        for job in beside:
            _show_job(job)
    for release in found["releases"]:
        click.echo(f"  release {output.short(release['identity'])}  {release['reference']}")
    return None


def _forge(found: dict[str, Any]) -> str:
    told = f"told: {found['forge_told']}" if found["forge_told"] else ""
    problem = f"not told: {found['forge_problem']}" if found["forge_problem"] else ""
    return "; ".join(text for text in (told, problem) if text)


def _show_job(job: dict[str, Any]) -> None:
    tail = f": {job['reason']}" if job["reason"] else ""
    after = f"  (after {', '.join(job['needs'])})" if job["needs"] else ""
    tail = f"{after}{', may fail' if job['allow_failure'] else ''}{tail}"
    click.echo(
        f"  {output.painted(job['state'])}  {job['key']}  {output.took(job['started_at'], job['finished_at'])}{tail}"
    )
    for attempt in job["attempts"]:
        for step in attempt["steps"]:
            end = f" exit {step['exit_code']}" if step["exit_code"] else ""
            means = f" ({step['meaning']})" if step["meaning"] else ""
            name = output.subject(step["name"])
            click.echo(f"      {output.painted(step['state'])}{end}{means}  {name}")
    if job["deployment"]:
        phases = " → ".join(phase["phase"] for phase in job["deployment"]["phases"]) or job["deployment"]["phase"]
        click.echo(f"      {phases}")
        if job["deployment"]["silence"]:
            click.echo(f"      {job['deployment']['silence']}")


@click.command()
@click.argument("run")
@click.argument("job", required=False)
@in_project
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("-n", "--tail", type=click.IntRange(1, 100_000), help="Only the last lines.")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Only the Nth try at the job.")
@click.option("--grep", metavar="TEXT", help="Only lines that hold this text, with their job and number.")
def logs(
    run: str,
    job: str | None,
    project: str | None,
    follow: bool,
    tail: int | None,
    attempt: int | None,
    grep: str | None,
) -> None:
    """Print the log of a run, or of one of its jobs; with -f go on until it ended. Ctrl-C only detaches.

    With --grep, RUN may also be the name of a flow: its 50 newest runs are searched, the newest first.
    """
    client = connect()
    if grep and is_name(run) and not run.isdigit() and run != "last":
        if job or tail or attempt or follow:
            raise click.UsageError("the logs of a flow are searched whole; leave out the job, --attempt, -n and -f")
        return _print(client.text(at("projects", the_project(client, project), "flows", run, "log"), grep=grep))
    name, number = the_run(client, run, project)
    if grep and tail:
        raise click.UsageError("--grep or -n, not both")
    if follow:
        if job or tail or attempt or grep:
            raise click.UsageError("-f follows the whole run; leave out the job, --attempt, --grep and -n")
        with watching.detaching(f"{name}#{number}"):
            watching.follow_log(client, name, number, None)
        return None
    if attempt and not job:
        raise click.UsageError("--attempt is one of a job; name the job, too")
    path = at("projects", name, "runs", number, "log")
    return _print(client.text(path, job=job, attempt=attempt, tail=tail, grep=grep))


def _print(pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


@click.command()
@click.argument("flow")
@in_project
@click.option("--ref", default="", metavar="BRANCH", help="The branch, tag or full ref to run at (else the main one).")
@click.option("--commit", default="", metavar="SHA", help="A commit of it, by 7 or more digits (else the newest).")
@click.option("-p", "--input", "inputs", multiple=True, metavar="NAME=VALUE", help="A declared input; repeatable.")
@click.option("-w", "--wait", is_flag=True, help="Print the log and reflect the result in the exit code.")
@click.option("--timeout", type=float, metavar="SECONDS", help="With -w: stop waiting after this (exit code 6).")
@click.option("--local", is_flag=True, help="Run it here and now, on a copy of the checkout you are in; no server.")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="With --local: another flow file.")
def run(
    flow: str,
    project: str | None,
    ref: str,
    commit: str,
    inputs: tuple[str, ...],
    wait: bool,
    timeout: float | None,
    local: bool,
    file: Path | None,
) -> int:
    """Start a flow by hand, or run it here with --local.

    A local run takes what is not committed along, deploys, asks and tells nobody, and ends with Ctrl-C.
    """
    given = dict(_input(text) for text in inputs)
    if local:
        from keepflow.cli.local_run.verb import run_locally

        return run_locally(flow, commit or ref, given, file)
    if file:
        raise click.UsageError("-f goes with --local; the server reads the flow file of the commit")
    client = connect()
    name = the_project(client, project)
    wanted = {"flow": flow, "ref": ref, "commit": commit, "inputs": given}
    started = client.post(at("projects", name, "runs"), wanted)
    say(f"started {name}#{started['run']}  {started['url']}")
    if not wait:
        click.echo(f"{name}#{started['run']}")
        return 0
    with watching.detaching(f"{name}#{started['run']}"):
        state = watching.follow_log(client, name, started["run"], timeout)
    return ended(f"{name}#{started['run']}", state)


def _waiting(client: Client, project: str, place: dict[str, Any]) -> list[tuple[str, str]]:
    """Say what waits at an environment's gate, and every rule of its newest candidate."""
    told = [("gate", place["gate"]["sentence"])] if place["gate"] else []
    newest = next((one for one in place["candidates"][:1] if not one["serves"]), None)
    if newest is None:
        return told
    preview = client.get(at("projects", project, "environments", place["name"], "preview"), source=newest["identity"])
    told.append(("candidate", f"{project}#{preview['run']} {'may be promoted' if preview['allowed'] else 'waits'}"))
    return told + [
        (guard["code"], f"{'met' if guard['met'] else 'NOT met'}: {guard['sentence']}") for guard in preview["guards"]
    ]


def ended(name: str, state: str | None) -> int:
    """Say how a watched thing ended and return the exit code."""
    if state is None:
        say(f"{name} is not finished; it goes on")
        return watching.TIMED_OUT
    say(f"{name} {output.painted(state)}")
    return watching.exit_code(state)


def _input(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"-p takes NAME=VALUE, not {text[:60]!r}")
    return name, value


@click.command()
@click.argument("run")
@in_project
@as_json
def cancel(run: str, project: str | None, form: str) -> None:
    """Cancel a run; a deployment that an agent accepted goes on."""
    client = connect()
    name, number = the_run(client, run, project)
    answer = client.post(at("projects", name, "runs", number, "cancel"))
    if form == "json":
        return output.print_json(answer)
    click.echo(f"{name}#{number} {answer['word']}: {answer['sentence']}")
    return None


@click.command()
@click.argument("run")
@click.argument("job", required=False)
@in_project
def approve(run: str, job: str | None, project: str | None) -> None:
    """Let the run of a pull request from a fork begin (read its code first), or say yes to what JOB asks."""
    client = connect()
    name, number = the_run(client, run, project)
    what = ("jobs", job, "approve") if job else ("approve",)
    click.echo(f"{name}#{number} {client.post(at('projects', name, 'runs', number, *what))['sentence']}")


@click.command()
@click.argument("what")
@in_project
@as_json
def why(what: str, project: str | None, form: str) -> None:
    """Say why a run (12, keepwork#12, last) or an environment is as it is."""
    client = connect()
    if re.fullmatch(r"last|(?:[a-z0-9-]*#)?\d+", what):
        name, number = the_run(client, what, project)
        found = client.get(at("projects", name, "runs", number, "why"))
        if form == "json":
            return output.print_json(found)
        told = [
            ("run", _name(found)),
            ("started", found["started"]),
            ("state", found["state"]),
            ("because", found["reason"]),
            ("that is", found["meaning"]),
            ("to do", found["help"]),
        ]
        told += [("ahead" if not index else "", line) for index, line in enumerate(found["ahead"])]
        told += [("agents" if not index else "", line) for index, line in enumerate(found["agents"])]
        told += [(f"job {job['key']}", f"{job['state']}: {job['reason']}") for job in found["jobs"]]
    else:
        name, _, environment = what.rpartition("/")
        name = the_project(client, name or project)
        every = client.get(at("projects", name, "environments"))["items"]
        found = next((one for one in every if one["name"] == environment), {})
        if not found:
            known = ", ".join(one["name"] for one in every) or "none"
            raise errors.NotFound(f"{name} has no environment {environment[:40]!r}; there are: {known}")
        told = [("environment", f"{name}/{environment}"), ("because", found["sentence"])]
        told += _waiting(client, name, found)
    if form == "json":
        return output.print_json(dict(told))
    output.facts(told)
    return None
