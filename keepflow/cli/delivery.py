"""`keepflow environments, promote, deploys`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from keepflow import errors
from keepflow.cli import output, rehearsing, watching
from keepflow.cli.client import Client, at, connect
from keepflow.cli.output import as_json, say
from keepflow.cli.runs import ended, in_project, the_project, the_run


@click.command()
@in_project
@as_json
def environments(project: str | None, form: str) -> None:
    """Show what serves where: digest, commit, since when, by whom."""
    client = connect()
    name = the_project(client, project)
    found = client.get(at("projects", name, "environments"))
    if form == "json":
        return output.print_json(found)
    rows = [row for place in found["items"] for row in _rows(name, place)]
    output.print_table(("ENVIRONMENT", "STATE", "DIGEST", "RUN", "COMMIT", "SINCE", "BY", "AGENT", "MESSAGE"), rows)
    for warning in found["warnings"]:
        say(f"warning: {warning}")
    for place in found["items"]:
        if place["serving"]:
            say(f"{place['name']}: rollback: {place['rollback']['sentence']}")
        if place["drift"]:
            say(f"{place['name']}: drift: {place['drift']}")
        for host in place["hosts"]:
            if host["underway"] and host["underway"]["silence"]:
                say(f"{place['name']}: {host['underway']['silence']}")
    return None


def _rows(project: str, place: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Make one line of an environment, and with several hosts one more for each of them."""
    hosts = place["hosts"]
    online = [host for host in hosts if host["online"]]
    if len(hosts) == 1:
        yield _row(project, place["name"], place, _agent(hosts[0]))
        return
    yield _row(project, place["name"], place, f"{len(online)} of {len(hosts)} online")
    for host in hosts:
        yield _row(project, f"  {host['agent']}", host, _agent(host))


def _agent(host: dict[str, Any]) -> str:
    return f"{host['agent']} {'online' if host['online'] else 'offline'}"


def _row(project: str, name: str, what: dict[str, Any], agent: str) -> tuple[str, ...]:
    serving = what["serving"]
    if what["drift"]:
        state = "drift"
    elif what["underway"]:
        state = what["underway"]["phase"]
    else:
        state = "mixed" if what.get("mixed") else "serving" if serving else "never"
    if serving is None:
        return (name, state, "", "", "", "", "", agent, "")
    return (
        name,
        state,
        output.short(serving["identity"]),
        f"{project}#{serving['run']}",
        serving["sha"][:7],
        output.when(serving["since"]),
        serving["by"],
        agent,
        output.subject(serving["message"]),
    )


@click.command()
@click.argument("environment")
@in_project
@click.option("-n", "--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="How many.")
@as_json
def deploys(environment: str, project: str | None, limit: int, form: str) -> None:
    """List the deployments of an environment, newest first."""
    client = connect()
    name = the_project(client, project)
    page = client.get(at("projects", name, "environments", environment, "deployments"), limit=limit)
    if form == "json":
        return output.print_json(page)
    rows = [
        (
            output.when(one["requested_at"]),
            one["phase"],
            one["kind"],
            output.short(one["identity"]),
            f"{name}#{one['run']}",
            one["sha"][:7],
            one["requested_by"],
            output.took(one["accepted_at"], one["finished_at"]),
            one["reason"] or one["note"],
        )
        for one in page["items"]
    ]
    output.print_table(("WHEN", "PHASE", "KIND", "DIGEST", "RUN", "COMMIT", "BY", "TOOK", "REASON"), rows)
    return None


@click.command()
@click.argument("source", required=False)
@click.option("--run", "run", metavar="RUN", help="The run whose release to promote.")
@click.option("--to", "environment", required=True, metavar="ENVIRONMENT", help="Where to.")
@in_project
@click.option("--note", default="", help="Why now; kept with the deployment.")
@click.option("--canary", default="", metavar="PERCENTS", help="Give it to so many percent first, like 5,25,50.")
@click.option("--hold", default="1m", show_default=True, metavar="TIME", help="How long each step of a canary is held.")
@click.option("-w", "--wait", is_flag=True, help="Tell the phases and reflect the outcome in the exit code.")
@click.option("--timeout", type=float, metavar="SECONDS", help="With -w: stop waiting after this (exit code 6).")
@click.option("--yes", is_flag=True, help="Do not ask for the environment's name.")
@click.option("--dry-run", is_flag=True, help="Only show what would change and which rules are met.")
@click.option("--rollback", is_flag=True, help="Say that going back to something older than what serves is meant.")
@click.option("--break-glass", is_flag=True, help="Override the rules that may be; needs --reason and is told to all.")
@click.option("--reason", metavar="TEXT", help="With --break-glass: why the rules cannot be kept.")
@click.option("--rehearse", is_flag=True, help="Only start it beside what serves, gate it, and take it away again.")
@as_json
def promote(
    source: str | None,
    run: str | None,
    environment: str,
    project: str | None,
    note: str,
    canary: str,
    hold: str,
    wait: bool,
    timeout: float | None,
    yes: bool,
    dry_run: bool,
    rollback: bool,
    break_glass: bool,
    reason: str | None,
    rehearse: bool,
    form: str,
) -> int:
    """Promote a tested release (a run or a digest): show the difference, ask, then let the agent carry it out."""
    if break_glass != (reason is not None):
        raise click.UsageError("--break-glass and --reason TEXT belong together")
    steps = _canary(canary, hold) if canary else {}
    client = connect()
    name, what = _source(client, source, run, project)
    place = at("projects", name, "environments", environment)
    if rehearse:
        return rehearsing.rehearse(client, place, what, timeout, form)
    preview = client.get(f"{place}/preview", source=what, rollback=rollback)
    _show(preview)
    passes = preview["allowed"] or (break_glass and preview["breakable"])
    if dry_run:
        if form == "json":
            output.print_json(preview)
        return 0 if passes else errors.Refused.exit_code
    if not passes:
        _refuse(preview, break_glass)
    if not yes:
        word = "roll back" if preview["direction"] == "back" else "promote"
        output.ask_typed(f"Type {environment} to {word}", environment, "--yes")
    body = {
        "identity": preview["identity"],
        "note": note,
        "key": uuid.uuid4().hex,
        "rollback": rollback,
        "break_glass": reason,
        "serving": preview["serving"] or "",
        **steps,
    }
    deployment = client.post(f"{place}/promotions", body)
    say(f"{name}#{preview['run']} goes to {environment} as run {name}#{deployment['run']}")
    return watch(client, name, deployment, wait, timeout, form)


def _refuse(preview: dict[str, Any], break_glass: bool) -> NoReturn:
    """Raise with every rule that stands in the way; with the glass broken, only those it cannot override."""
    unmet = [guard for guard in preview["guards"] if not guard["met"]]
    stands = [guard for guard in unmet if not (break_glass and guard["overridable"])]
    raise errors.Refused("; ".join(guard["sentence"] for guard in stands), code=stands[0]["code"])


def watch(client: Client, name: str, deployment: dict[str, Any], wait: bool, timeout: float | None, form: str) -> int:
    """Print a started deployment; with `wait` follow it and return what its end means as an exit code."""
    label = f"{name}#{deployment['run']}"
    outcome: dict[str, Any] | None = deployment
    if wait:
        with watching.detaching(label):
            outcome = watching.follow_deployment(client, deployment["id"], timeout)
        if outcome and outcome["reason"]:
            say(outcome["reason"])
    if form == "json":
        output.print_json(outcome or client.get(at("deployments", deployment["id"])))
    else:
        click.echo(deployment["id"])
    return ended(label, outcome["phase"] if outcome else None) if wait else 0


def _canary(percents: str, hold: str) -> dict[str, Any]:
    from pydantic import TypeAdapter

    from keepflow.config.fields import Duration

    try:
        steps = [int(percent.strip().removesuffix("%")) for percent in percents.split(",")]
        seconds = int(TypeAdapter(Duration).validate_python(hold))
    except ValueError:
        raise click.UsageError("a canary is written like --canary 5,25,50 --hold 2m") from None
    return {"canary": steps, "hold": seconds}


def _source(client: Client, source: str | None, run: str | None, project: str | None) -> tuple[str, str]:
    text = source or run
    if text is None or (source and run):
        raise click.UsageError("name what to promote: a run (--run 12) or a digest")
    if text.startswith("sha256:"):
        return the_project(client, project), text
    name, number = the_run(client, text, project)
    return name, str(number)


def show_guards(preview: dict[str, Any]) -> None:
    """Print every rule, whether it is met, and whether it may be overridden."""
    for guard in preview["guards"]:
        may = "  (may be overridden with --break-glass)" if guard["overridable"] and not guard["met"] else ""
        say(f"  {'✓' if guard['met'] else '✗'} {guard['sentence']}{may}")


def _show(preview: dict[str, Any]) -> None:
    before = output.short(preview["serving"]) or "nothing"
    target = f"{preview['project']}/{preview['environment']}"
    say(f"{target}: {before} → {output.short(preview['identity'])} (run {preview['project']}#{preview['run']})")
    say_change(preview["commits"], preview["leaving"], preview["changes"])
    if preview["order"]:
        say(preview["order"])
    if preview["stop_first"]:
        say("visitors see a maintenance page while it starts")
    show_guards(preview)


def say_change(coming: list[dict[str, Any]], leaving: list[dict[str, Any]], changes: list[dict[str, Any]]) -> None:
    """Tell which commits and settings would change."""
    for title, commits in (("would go live", coming), ("would GO AWAY", leaving)):
        if commits:
            say(f"{len(commits)} commit{'s' if len(commits) != 1 else ''} {title}:")
            for commit in commits:
                say(f"  {commit['sha'][:7]}  {output.subject(commit['subject'])}  ({output.subject(commit['author'])})")
    if changes:
        say("settings that change:")
        for change in changes:
            before = "not set" if change["before"] is None else change["before"]
            after = "not set" if change["after"] is None else change["after"]
            say(f"  {change['setting']}: {output.subject(before)} → {output.subject(after)}")
