"""`keepflow receipt`."""

from __future__ import annotations

from typing import Any

import click

from keepflow.cli import output
from keepflow.cli.client import at, connect
from keepflow.cli.output import as_json, say
from keepflow.cli.runs import in_project, the_run


@click.command()
@click.argument("run")
@in_project
@as_json
def receipt(run: str, project: str | None, form: str) -> None:
    """Show what the switches of a run proved, host by host and together."""
    client = connect()
    name, number = the_run(client, run, project)
    found = client.get(at("projects", name, "runs", number, "receipt"))
    if form == "json":
        return output.print_json(found)
    if not found["hosts"]:
        return say(f"{name}#{number} deployed nothing")
    output.print_table(("HOST", "ENVIRONMENT", "PHASE", "SENT", "FAILED", "P99", "REASON"), _rows(found))
    return None


def _rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for host in found["hosts"]:
        probes = (host["receipt"] or {}).get("probes")
        seen = probes if isinstance(probes, dict) else {}
        figures = (str(seen.get("sent", "")), str(seen.get("failed", "")), _ms(seen.get("p99_ms")))
        rows.append((host["host"], host["environment"], host["phase"], *figures, host["reason"]))
    if len(rows) > 1:
        rows.append(("all", "", found["state"], str(found["sent"]), str(found["failed"]), _ms(found["p99_ms"]), ""))
    return rows


def _ms(value: Any) -> str:
    return f"{value} ms" if isinstance(value, int | float) else ""
