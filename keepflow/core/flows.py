"""What a flow file says, as frozen data; `config.flow_file` reads the file, `core.planning` turns it into jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from keepflow.core.job_secrets import SecretUse
from keepflow.core.matrix import Matrix
from keepflow.core.priority import Priority
from keepflow.core.retrying import Retry


class JobKind(StrEnum):
    """The kinds of jobs: what is handed out as one."""

    SCRIPT = "script"  #: steps, carried out by an agent
    DEPLOY = "deploy"  #: a release made to serve, carried out by an agent's deployer
    APPROVE = "approve"  #: a gate; holds nobody
    NOTIFY = "notify"  #: carried out by the master


#: Jobs that one flow may have.
JOBS_LIMIT = 256
JOB_TIMEOUT = 7200.0  #: seconds for a script job when neither it nor its flow says
#: Flow name of a run that only says why there is no flow.
NO_FLOW = "none"
#: Keys of the flow file that are jobs of their own, never step files.
JOB_KEYS = frozenset({JobKind.DEPLOY.value, JobKind.APPROVE.value, JobKind.NOTIFY.value})


class When(StrEnum):
    """What must have become of the jobs that a job needs, for it to run."""

    SUCCESS = "success"  #: all of them went well
    FAILURE = "failure"  #: one of them failed, or was never begun because of a failure
    ALWAYS = "always"  #: they have ended, whatever came of them


class Strategy(StrEnum):
    """How a new container follows the old one."""

    OVERLAP = "overlap"  #: new beside old, switch, then stop old
    STOP_FIRST = "stop-first"  #: maintenance page, stop old, start new


@dataclass(frozen=True, slots=True)
class Health:
    """When a new container counts as healthy: `successes` HTTP passes in a row on `path` within `within` seconds."""

    path: str = "/"
    within: float = 60.0
    successes: int = 3
    timeout: float = 2.0  #: seconds for one try
    interval: float = 0.1  #: seconds between two tries


@dataclass(frozen=True, slots=True)
class Volume:
    """A named volume mounted at `at`; `shared` says that two containers may write it at once."""

    name: str
    at: str
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Container:
    """Default description of one container; frozen into every release."""

    port: int = 8080
    health: Health = field(default_factory=Health)
    env: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    secrets_in_env: tuple[str, ...] = ()  #: those of them that are variables, not files: root sees them in inspect
    volumes: tuple[Volume, ...] = ()
    args: tuple[str, ...] = ()
    strategy: Strategy = Strategy.OVERLAP
    stop_timeout: float = 30.0  #: seconds between SIGTERM and SIGKILL
    release_command: tuple[str, ...] = ()  #: argv run to its end before the new container is started; () = none
    release_timeout: float = 300.0  #: seconds that it may take


@dataclass(frozen=True, slots=True)
class Checkout:
    """What a checkout holds besides the files of its commit."""

    submodules: str = ""  #: "" none, "direct" those of the commit, "recursive" theirs too
    lfs: bool = False  #: files that Git LFS keeps, instead of the pointers to them


@dataclass(frozen=True, slots=True)
class Trigger:
    """Which events start a flow: branch patterns, tag patterns, the plain switches, and which changed files count."""

    push: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    pull_request: bool = False
    manual: bool = False
    cron: str = ""
    tz: str = ""
    paths: tuple[str, ...] = ()
    paths_ignore: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a script job: its kind (a file in `steps/`), a name for people, and the kind's own settings."""

    kind: str
    name: str
    spec: dict[str, Any]
    line: int = 0  #: line in the flow file, for messages
    timeout: float = 0.0  #: seconds it may take; 0 = only its job's limit counts
    secrets: tuple[SecretUse, ...] = ()  #: what it is given while it runs
    where: dict[str, Any] = field(default_factory=dict)  #: its own image and services (`config.where`); {} = its job's
    idempotent: bool = False  #: it does no harm to run it twice, also at once


@dataclass(frozen=True, slots=True)
class JobPart:
    """One entry of a flow as written: a step, or a job of its own (`deploy: dev`)."""

    kind: JobKind
    step: Step | None = None  #: for SCRIPT
    target: str = ""  #: DEPLOY: environment name; NOTIFY: address; APPROVE: text
    line: int = 0
    per_branch: bool = False  #: DEPLOY: every branch has an instance of its own there


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """One job of a plan: what is handed out as one, and which jobs must have succeeded before."""

    key: str
    kind: JobKind
    needs: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    target: str = ""
    host: str = ""  #: DEPLOY: the agent of the host it goes to; "" when the environment was not there to be asked
    group: str = ""  #: DEPLOY: key of the deploy as the flow writes it; one group goes to all hosts of an environment
    when: str = When.SUCCESS
    allow_failure: bool = False  #: its failure stops nothing and does not make the run a failed one
    stage: str = ""  #: the stage that the flow file puts it in; "" = it has none
    matrix: dict[str, str] = field(default_factory=dict)  #: SCRIPT: its combination of a matrix, for its scripts
    per_branch: bool = False  #: DEPLOY: every branch has an instance of its own there
    timeout: float = 0.0  #: SCRIPT: seconds one attempt may take; 0 = what the flow says, else two hours
    retry: Retry | None = None  #: SCRIPT: when it is tried again; None = what the flow says, else never
    where: dict[str, Any] = field(default_factory=dict)  #: SCRIPT: image and services of its steps (`config.where`)
    labels: tuple[str, ...] = ()  #: SCRIPT: what its agent must have, all of them


@dataclass(frozen=True, slots=True)
class GraphJob:
    """One entry of a flow's `jobs:` as written; `core.graphs` makes plain needs of all that wires it to others."""

    job: PlannedJob  #: what it is by itself, with the needs and the stage that it names
    when: When | None = None  #: as written; None = not said
    success: tuple[str, ...] = ()  #: jobs that run when it went well
    failure: tuple[str, ...] = ()  #: jobs that run when it failed
    matrix: Matrix | None = None  #: SCRIPT: it becomes one job for each combination


@dataclass(frozen=True, slots=True)
class Flow:
    """What starts it, how two runs of it meet, and its work: a list of parts in order, or a graph of jobs."""

    name: str
    on: Trigger
    parts: tuple[JobPart, ...] = ()
    jobs: tuple[GraphJob, ...] = ()
    stages: tuple[str, ...] = ()
    concurrency: str = "queue"  #: queue | latest | cancel
    group: str = ""  #: flows of one group never run at once; "" = the flow by itself
    priority: str = Priority.NORMAL
    inputs: dict[str, Any] = field(default_factory=dict)
    timeout: float = 0.0  #: seconds a run may take from its first job on; 0 = no limit of its own
    retry: Retry | None = None  #: of script jobs that do not say it themselves
    line: int = 0
    where: dict[str, Any] = field(default_factory=dict)  #: image and services of its jobs (`config.where`)
    labels: tuple[str, ...] = ()  #: of a list of parts: what the agents of its script jobs must have
    checkout: Checkout = Checkout()


@dataclass(frozen=True, slots=True)
class FlowFile:
    """A whole flow file at one commit."""

    flows: dict[str, Flow]
    image: str | None = None
    container: Container | None = None
    version: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run will do, frozen into its row; `container` and `image` are what its releases will carry."""

    flow: str
    jobs: tuple[PlannedJob, ...]
    concurrency: str = "queue"
    image: str | None = None
    container: Container | None = None
    timeout: float = 0.0  #: seconds a run may take from its first job on; 0 = no limit
    group: str = ""  #: runs of one group of a project never run at once; "" = those of the flow
    priority: str = Priority.NORMAL
    checkout: Checkout = Checkout()
