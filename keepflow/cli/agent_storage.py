"""`keepflow agent storage`: what of jobs lies on a build host, and what of it goes by the rule of its agent.yml."""

from __future__ import annotations

import time
from pathlib import Path

import click

from keepflow.agent.state import State
from keepflow.cli.agent import CONFIG, STATE
from keepflow.cli.output import as_json, print_json, print_table
from keepflow.core.text import words
from keepflow.errors import UsageError


@click.command()
@click.option("--prune", is_flag=True, help="Remove now what the rule gives up; the running agent does it every hour.")
@click.option("--dry-run", is_flag=True, help="With --prune: show what would go, and remove nothing.")
@CONFIG
@STATE
@as_json
def storage(prune: bool, dry_run: bool, config: Path, root: Path, form: str) -> None:
    """List checkouts and images of jobs on this host, why they stay, and what would go."""
    from keepflow.agent.host_file import HostFile
    from keepflow.agent.storage import storage_of

    if dry_run and not prune:
        raise UsageError("--dry-run goes with --prune", code="bad-option")
    kept = storage_of(State(root), HostFile(config).now)
    listed = kept.items()
    names = {item: kept.shown(item) for item in listed}
    gone = kept.prune() if prune and not dry_run else kept.over()
    going = {(item.kind, item.name) for item in gone}
    now = time.time()
    rows = []
    for item in sorted(listed, key=lambda item: item.used_at):
        becomes = item.needed or "kept"
        if (item.kind, item.name) in going:
            becomes = "removed" if prune and not dry_run else "goes"
        rows.append((item.kind, names[item], item.size, words(float(int(now - item.used_at))) or "now", becomes))
    rule = kept.rule()
    if form == "json":
        keys = ("kind", "name", "bytes", "unused", "becomes")
        return print_json(
            {
                "unused": rule.unused,
                "budget": rule.budget,
                "free": kept.free(),
                "items": [dict(zip(keys, row, strict=True)) for row in rows],
            }
        )
    shown = [(kind, name, f"{size / 1e6:,.1f} MB", unused, becomes) for kind, name, size, unused, becomes in rows]
    print_table(("WHAT", "NAME", "SIZE", "UNUSED FOR", "BECOMES"), shown)
    limits = [f"what was used in the last {words(rule.unused)}"] if rule.unused else []
    limits += [f"{rule.budget / 1e9:,.1f} GB of it"] if rule.budget else []
    click.echo(f"kept: {', '.join(limits) or 'everything (storage: in agent.yml)'}")
    click.echo(f"free: {kept.free() / 1e9:,.1f} GB")
    return None
