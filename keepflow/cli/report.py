"""`keepflow report`: how runs, stages and jobs went, as a table or for other programs."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

import click

from keepflow.cli import output
from keepflow.cli.client import Client, at, connect
from keepflow.cli.runs import in_project, the_project
from keepflow.core.text import did_you_mean, one_line, quoted
from keepflow.errors import NotFound

Row = dict[str, Any]

_OF_RUNS = ("run", "flow", "state", "branch", "commit", "started", "seconds", "reason")
_OF_JOBS = ("run", "flow", "stage", "job", "state", "started", "seconds", "reason")
_BAD = ("failed", "lost", "cancelled")


@click.command()
@in_project
@click.option("--flow", metavar="NAME", help="Only this flow.")
@click.option("--run", "number", type=click.IntRange(1), metavar="N", help="Of one run: its jobs.")
@click.option("--stage", metavar="NAME", help="Of one stage of the flow: its jobs, in every run or in one.")
@click.option("--job", metavar="NAME", help="Of one job of the flow, in every run or in one.")
@click.option("-n", "--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="How many runs.")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv", "junit"]), default="table")
def report(
    project: str | None, flow: str | None, number: int | None, stage: str | None, job: str | None, limit: int, form: str
) -> None:
    """Report how runs went, newest first: all, those of a flow, one run, a stage, or a job."""
    if (stage or job) and not flow:
        raise click.UsageError(f"--{'stage' if stage else 'job'} belongs to a flow: name it with --flow")
    client = connect()
    name = the_project(client, project)
    runs = [_one(client, name, number, flow)] if number else _several(client, name, flow, limit)
    if number or stage or job:
        details = runs if number else [client.get(at("projects", name, "runs", run["number"])) for run in runs]
        return _write(_OF_JOBS, _jobs(details, stage, job), form)
    return _write(_OF_RUNS, [_run(run) for run in runs], form)


def _several(client: Client, project: str, flow: str | None, limit: int) -> list[Row]:
    found: list[Row] = client.get(at("projects", project, "runs"), limit=limit, **({"flow": flow} if flow else {}))[
        "items"
    ]
    if not found:
        raise NotFound(f"{project} has no run" + (f" of a flow {quoted(flow)}" if flow else ""), code="no-run")
    return found


def _one(client: Client, project: str, number: int, flow: str | None) -> Row:
    found: Row = client.get(at("projects", project, "runs", number))
    if flow and found["flow"] != flow:
        raise NotFound(f"{project}#{number} is a run of {found['flow']}, not of {quoted(flow)}", code="no-run")
    return found


def _jobs(details: Sequence[Row], stage: str | None, job: str | None) -> list[Row]:
    """Return the jobs of some runs that fit; raises NotFound when none of them has such a stage or job."""
    every = [(run, one) for run in details for one in run["jobs"]]
    in_stage = [(run, one) for run, one in every if not stage or one["stage"] == stage]
    found = [(run, one) for run, one in in_stage if not job or one["key"] == job]
    for what, wanted, left, known in (
        ("stage", stage, in_stage, {one["stage"] for _, one in every if one["stage"]}),
        ("job", job, found, {one["key"] for _, one in in_stage}),
    ):
        if wanted and not left:
            there = did_you_mean(wanted, known) or f"; there are: {', '.join(sorted(known)) or 'none'}"
            raise NotFound(f"no {what} {quoted(wanted)}{there}", code=f"no-{what}")
    return [
        {"run": run["number"], "flow": run["flow"], "stage": one["stage"], "job": one["key"], **_end(one)}
        for run, one in found
    ]


def _run(run: Row) -> Row:
    branch = run["ref"].removeprefix("refs/heads/").removeprefix("refs/tags/")
    return {"run": run["number"], "flow": run["flow"], "branch": branch, "commit": run["sha"], **_end(run)}


def _end(one: Row) -> Row:
    return {
        "state": one["state"],
        "started": one["started_at"] or "",
        "seconds": _seconds(one["started_at"], one["finished_at"]),
        "reason": one["reason"],
    }


def _seconds(start: str | None, end: str | None) -> float | None:
    if not start or not end:
        return None
    return round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds(), 3)


def _write(columns: Sequence[str], rows: Sequence[Row], form: str) -> None:
    if form == "json":
        return output.print_json([{column: row[column] for column in columns} for row in rows])
    if form == "junit":
        return click.echo(_junit(rows))
    cells = [["" if row[column] is None else one_line(str(row[column]), 400) for column in columns] for row in rows]
    if form == "table":
        return output.print_table([column.upper() for column in columns], cells)
    csv.writer(sys.stdout, lineterminator="\n").writerows([columns, *cells])
    return None


def _junit(rows: Iterable[Row]) -> str:
    """Return rows as JUnit has them: a suite for each flow, a case for each run or job."""
    root = ElementTree.Element("testsuites")
    suites: dict[str, ElementTree.Element] = {}
    for row in rows:
        flow = row["flow"]
        suite = suites.setdefault(flow, ElementTree.Element("testsuite", name=flow))
        title = f"#{row['run']} {row['job']}" if "job" in row else f"#{row['run']}"
        case = ElementTree.SubElement(suite, "testcase", classname=flow, name=title, time=str(row["seconds"] or 0))
        reason = one_line(row["reason"], 400)
        if row["state"] in _BAD:
            ElementTree.SubElement(case, "failure", type=row["state"], message=reason)
        elif row["state"] != "succeeded":
            ElementTree.SubElement(case, "skipped", message=reason or row["state"])
    for suite in suites.values():
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
        root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode")
