"""Secrets of a project for its jobs: how a step asks for one, and which runs may have it.

Code from outside (a pull request, a fork, a ref that is neither branch nor tag) never gets any.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from keepflow.core.patterns import decide
from keepflow.core.text import quoted

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
#: Variables that keepflow and the system give a meaning to: no script and no secret may set them for later commands.
_OWNED = ("KEEPFLOW_", "LD_", "DOCKER_")
_OWNED_NAMES = frozenset({"CI", "HOME", "WORKSPACE", "JENKINS_HOME"})


@dataclass(frozen=True, slots=True)
class SecretUse:
    """One secret that a step asks for by name. Exactly one of the others says how it gets it.

    A step runs without an `optional` one that its run does not get; it never gets more by that.
    """

    name: str
    env: str = ""  #: variable that holds the value
    file: str = ""  #: path in the checkout of a file that holds it
    file_env: str = ""  #: variable that holds the path of a file outside of the checkout
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Binding:
    """Which runs may have a secret. Without branches, tags and environments: those whose branch reaches any."""

    flows: tuple[str, ...] = ()  #: () = every flow
    branches: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()  #: the branch must reach one of them


@dataclass(frozen=True, slots=True)
class Receiver:
    """A run as far as it matters to secrets; `reaches`: environments that its branch may be deployed to."""

    flow: str
    ref: str
    reaches: frozenset[str] = frozenset()
    foreign: bool = False  #: its code comes from a pull request or a fork


def withheld(binding: Binding, run: Receiver) -> str | None:
    """Say why a run does not get a secret with this binding, or None when it does."""
    kind, _, name = run.ref.partition("/")[2].partition("/")
    if run.foreign or not run.ref.startswith(("refs/heads/", "refs/tags/")):
        return "code of pull requests and forks gets no secrets"
    if binding.flows and run.flow not in binding.flows:
        return f"it is for the flow{'s' * (len(binding.flows) > 1)} {', '.join(binding.flows)}, not {run.flow}"
    if kind == "tags":
        fits = decide(binding.tags, name).selected
        return None if fits else _not_for("tag", name, binding.tags or ("no tags",))
    if binding.branches and not decide(binding.branches, name).selected:
        return _not_for("branch", name, binding.branches)
    if binding.environments and run.reaches.isdisjoint(binding.environments):
        return _not_for("branch", name, tuple(f"branches of {one}" for one in binding.environments))
    if not binding.branches and not run.reaches:
        return f"branch {quoted(name)} reaches no environment; --branch names others that may have it"
    return None


def _not_for(noun: str, name: str, what: tuple[str, ...]) -> str:
    return f"it is for {', '.join(what)}, not {noun} {quoted(name)}"


def is_owned(variable: str) -> bool:
    """Say whether a variable is keepflow's own, or one that makes programs load code."""
    return variable.startswith(_OWNED) or variable in _OWNED_NAMES
