"""Deployments that a person asks for on the host itself, with or without an agent process, master, registry or forge.

The lock, the journal and the phases are those of every deployment. What this process cannot do is tell the master: its
ends stay in the journal, and the agent reports them when it runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from keepflow.agent.deployer import Deployer
from keepflow.agent.deployment import Deployment, Outcome
from keepflow.agent.front import Front
from keepflow.agent.held_secrets import HeldSecrets
from keepflow.agent.host_file import HostFile
from keepflow.agent.host_policies import HostPolicies
from keepflow.agent.state import State
from keepflow.core.states import Phase
from keepflow.core.text import words
from keepflow.errors import Refused
from keepflow.ports import Target
from keepflow.targets.docker import Docker

AT_ONCE = 1.0  #: seconds that the agent's own looks at an instance may take
_PATIENCE = 600.0  #: seconds to wait for a deployment that is under way


class Spoken:
    """Tells the person at the terminal; fits `deployment.Reporter`."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def phase(self, deployment: Deployment, phase: Phase, detail: str) -> None:  # noqa: ARG002 - the port's signature
        """Say a phase."""
        self._say(f"  {phase.value}{f': {detail}' if detail else ''}")

    def finished(self, deployment: Deployment, outcome: Outcome) -> None:
        """Say nothing: the caller gets the outcome, and the agent tells the master."""


def deployer(state: State, host_file: HostFile, say: Callable[[str], None], engine: Target | None = None) -> Deployer:
    """Return a deployer over an agent's directory, which another process or part may be using at the same time."""
    os.umask(0o022)  # nginx's workers read flags and pages
    file = host_file.now()
    return Deployer(
        state.root,
        state.identity().agent,
        engine or Docker(file.docker.host),
        Front(host_file, state.front_root),
        HostPolicies(host_file),
        Spoken(say),
        HeldSecrets(state.root / "secrets", state.key().opening),
        str(file.networks),
        patience=AT_ONCE,
        tells=False,
    )


def roll_back(deployer: Deployer, service: str, instance: str, to: str, by: str, say: Callable[[str], None]) -> Outcome:
    """Settle what a dead process left, then make an earlier release serve; raises Refused, NotFound, UsageError."""
    for outcome in deployer.settle_open():
        say(f"an earlier deployment was brought to its end: {outcome.sentence}")
    try:
        accepted = deployer.accept_rollback(service, instance, to, by)
    except Refused as error:
        if error.code != "instance-busy":
            raise
        say(f"{error.message}: this one waits up to {words(_PATIENCE)}")
        deployer.patience = _PATIENCE
        accepted = deployer.accept_rollback(service, instance, to, by)
    say(f"{service}/{instance} goes back to {accepted.deployment.identity}")
    return deployer.carry_out(accepted)
