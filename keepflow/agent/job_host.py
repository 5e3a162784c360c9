"""What every script job on this host is given."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol

from keepflow.agent.accounts import JobsAccount
from keepflow.agent.clock import Clock
from keepflow.agent.images import Images
from keepflow.agent.kept_images import KeptImages
from keepflow.agent.lanes import Source
from keepflow.agent.reports import Reports
from keepflow.agent.workplace import Workplace
from keepflow.config.agent_file import AgentFile
from keepflow.tools.engine import Engine
from keepflow.wire.messages import RunJob


class Saying(Protocol):
    """Where lines of a job's log are said: `agent.recording.Recording`."""

    def tell(self, text: str) -> None:
        """Say a line of what is done again when the job is taken up: it is not said again."""

    def say_line(self, text: str) -> None:
        """Say a line of what happens by chance."""


class Code(Protocol):
    """Where jobs have their files: `agent.workspaces.Workspaces`, or a person's own working tree."""

    def of(self, order: RunJob, source: Source, again: Path | None = None) -> contextlib.AbstractContextManager[Path]:
        """Hold the working tree of a job while it runs: its commit, with what the jobs before it left.

        `again` is the one that a job has which an earlier process of the agent began: that one, as it is.
        """

    def hand_on(self, order: RunJob, source: Source, log: Saying) -> None:
        """Bring the files of a job whose steps have ended to where other machines find them."""


class Keeper(Protocol):
    """Where files of jobs are kept."""

    def keep(self, order: RunJob, tree: Path, patterns: Sequence[str], seconds: float, log: Saying) -> None:
        """Keep every file of a checkout that fits one of the patterns; raises UsageError when one fits none."""

    def fetch(self, order: RunJob, tree: Path, log: Saying) -> None:
        """Lay what the jobs before this one have kept into its checkout."""


@dataclass(frozen=True, slots=True)
class Host:
    """The parts that jobs use; made once, by the daemon."""

    agent: str
    master: str
    ca_file: Path | None
    file: AgentFile
    account: JobsAccount
    workplace: Workplace
    code: Code
    kinds: Mapping[str, ModuleType]
    images: Images
    kept_images: KeptImages
    reports: Reports
    clock: Clock
    secrets: Callable[[RunJob], dict[str, str]]  #: opens what came with an order, by name
    artifacts: Keeper
    engine: Engine
    key_id: str
