"""`keepflow agent ls, token, drain, undrain, revoke`: what a person does to agents from afar, beside their own verbs.

The HTTP client is imported by the verbs that use it: `keepflow agent run` passes through here, and stays small without.
"""

from __future__ import annotations

from typing import Any

import click

from keepflow.cli import on_host, output
from keepflow.cli.agent import agent
from keepflow.cli.agent_bootstrap import bootstrap
from keepflow.cli.agent_doctor import doctor
from keepflow.cli.agent_storage import storage
from keepflow.cli.output import as_json, say

__all__ = ["agent", "on_host"]

agent.add_command(bootstrap)
agent.add_command(doctor)
agent.add_command(storage)


@agent.command("ls")
@as_json
def list_agents(form: str) -> None:
    """List the agents a master knows."""
    from keepflow.cli.client import connect

    found = connect().get("/agents")
    if form == "json":
        return output.print_json(found)
    rows = [
        (
            one["name"],
            _state(one),
            ", ".join(one["capabilities"]),
            f"{len(one['running'])}/{one['slots']}" if "run" in one["capabilities"] else "",
            ", ".join(one["running"]),
            ", ".join(one["labels"]),
            ", ".join(one["environments"]),
            output.when(one["last_seen_at"]),
            one["offline_why"] or (f"drained by {one['drained_by']}" if one["drained_by"] else ""),
        )
        for one in found["items"]
    ]
    output.print_table(("AGENT", "STATE", "CAN", "BUSY", "RUNS", "LABELS", "SERVES", "SEEN", "WHY"), rows)
    return None


def _state(agent: dict[str, Any]) -> str:
    if agent["revoked"]:
        return "revoked"
    state = "online" if agent["connected"] else "offline"
    return f"{state}, drained" if agent["drained_by"] else state


@agent.command("token")
@click.argument("name")
def make_join_token(name: str) -> None:
    """Print the one-time token by which a machine joins as NAME."""
    from keepflow.cli.client import connect

    made = connect().post("/agents", {"name": name})
    say(f"on the machine, within 15 minutes: {made['command']}   (the token on its stdin)")
    click.echo(made["token"])


@agent.command("drain")
@click.argument("name")
def drain(name: str) -> None:
    """Give an agent no new script jobs; what it holds it ends, and runs that began on it go on there."""
    from keepflow.cli.client import at, connect

    drained = connect().post(at("agents", name, "drain"))
    held = f"; it still works on {', '.join(drained['running'])}" if drained["running"] else ""
    say(f"agent {name} gets no new script jobs{held}")


@agent.command("undrain")
@click.argument("name")
def undrain(name: str) -> None:
    """Give an agent script jobs again."""
    from keepflow.cli.client import at, connect

    connect().post(at("agents", name, "undrain"))
    say(f"agent {name} gets script jobs again")


@agent.command("revoke")
@click.argument("name")
def revoke(name: str) -> None:
    """Take an agent's identity away; it must join again."""
    from keepflow.cli.client import at, connect

    connect().post(at("agents", name, "revoke"))
    say(f"agent {name} is revoked")
