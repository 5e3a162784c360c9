"""`keepflow agent ls, token, revoke`: what a person does to agents from afar, added to the agent's own verbs.

The HTTP client is imported by the verbs that use it: `keepflow agent run` passes through here, and stays small without.
"""

from __future__ import annotations

import click

from keepflow.cli import on_host, output
from keepflow.cli.agent import agent
from keepflow.cli.agent_bootstrap import bootstrap
from keepflow.cli.agent_doctor import doctor
from keepflow.cli.output import as_json, say

__all__ = ["agent", "on_host"]

agent.add_command(bootstrap)
agent.add_command(doctor)


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
            "revoked" if one["revoked"] else "online" if one["connected"] else "offline",
            ", ".join(one["capabilities"]),
            ", ".join(one["labels"]),
            ", ".join(one["environments"]),
            output.when(one["last_seen_at"]),
            one["offline_why"],
        )
        for one in found["items"]
    ]
    output.print_table(("AGENT", "STATE", "CAN", "LABELS", "SERVES", "SEEN", "WHY"), rows)
    return None


@agent.command("token")
@click.argument("name")
def make_join_token(name: str) -> None:
    """Print the one-time token by which a machine joins as NAME."""
    from keepflow.cli.client import connect

    made = connect().post("/agents", {"name": name})
    say(f"on the machine, within 15 minutes: {made['command']}   (the token on its stdin)")
    click.echo(made["token"])


@agent.command("revoke")
@click.argument("name")
def revoke(name: str) -> None:
    """Take an agent's identity away; it must join again."""
    from keepflow.cli.client import at, connect

    connect().post(at("agents", name, "revoke"))
    say(f"agent {name} is revoked")
