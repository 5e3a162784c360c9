"""Script jobs: what an agent is told to run, and what it says of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Literal

from pydantic import Field

from keepflow.core.events import Trust
from keepflow.core.flows import Step
from keepflow.wire.messages.base import Message, Whole


class SecretUse(Message):
    """How a step gets one of the job's secrets: one of the next three is set (`core.job_secrets`)."""

    name: str
    env: str = ""
    file: str = ""
    file_env: str = ""
    optional: bool = False  #: the step runs without it when no value of it came


class Away(Message):
    """What the last attempt at a job handed on: a commit in its run's own repository on the master."""

    fence: Whole
    commit: str


class Shared(Message):
    """What a job shares with others of its run: it goes on with the files of `bases`.

    Those are on this host, or `away`: handed on by a job on another machine. With `hands_on` the job's own files are
    handed on in the same way at its end. `followers` jobs go on with its own files. `tracked` asks to note which files
    it changes: some job of the run goes on with several. What two bases both changed ends the job, unless it is
    `lenient`: then the first one counts.
    """

    bases: tuple[str, ...] = ()
    followers: Whole = 0
    tracked: bool = False
    lenient: bool = False
    again: bool = False  #: it may be tried again, so what its bases left must stay
    hands_on: bool = False
    away: dict[str, Away] = Field(default_factory=dict)


class StepOrder(Message):
    """One step as the flow file said it."""

    kind: str
    name: str
    spec: dict[str, Any]
    timeout: float = 0.0  #: seconds; 0 = the job's limit only
    secrets: tuple[SecretUse, ...] = ()
    where: dict[str, Any] = Field(default_factory=dict)  #: its own image and services (`config.where`)

    @classmethod
    def of(cls, step: Step) -> StepOrder:
        """Return what an agent is told of a planned step."""
        uses = tuple(SecretUse(**asdict(use)) for use in step.secrets)
        return cls(kind=step.kind, name=step.name, spec=step.spec, timeout=step.timeout, secrets=uses, where=step.where)


class LentSecret(Message):
    """A secret lent to one attempt, sealed to the agent's key for `job_secret_place`."""

    name: str
    version: Whole
    sealed: str = Field(repr=False)  #: base64


def job_secret_place(fence: int, project: str, name: str, version: int) -> str:
    """Return the place that a secret of an attempt is sealed for."""
    return json.dumps(["keepflow-lent-secret-v1", fence, project, name, version])


class Login(Message):
    """A registry login lent to one job."""

    address: str
    username: str
    password: str = Field(repr=False)
    ca_pem: str = Field(default="", repr=False)
    repositories: tuple[str, ...] = ()


class Checkout(Message):
    """What a job's checkout holds besides the files of its commit."""

    submodules: str = ""  #: "", "direct" or "recursive"
    lfs: bool = False


class RunJob(Message):
    """Run one script job. `fence` names this attempt in everything that follows."""

    type: Literal["run-job"] = "run-job"
    fence: Whole
    project: str
    run: Whole
    flow: str
    job: str
    attempt: Whole
    sha: str
    ref: str
    trust: Trust
    code_path: str  #: path on the master of the project's git, for smart HTTP
    token: str = Field(repr=False)  #: job token: good for this job's code only, dead when the attempt ends
    env: dict[str, str]
    steps: tuple[StepOrder, ...]
    logins: tuple[Login, ...] = ()
    secrets: tuple[LentSecret, ...] = ()
    artifacts: Whole = 0  #: files that earlier jobs of the run kept for this one
    mask: tuple[str, ...] = Field(default=(), repr=False)  #: secret values to mask in the log
    images: tuple[str, ...] = ()  #: image names this project may release
    timeout: float = 7200.0  #: seconds for the whole job
    built: str = ""  #: the image that the jobs before it built last, as this agent's engine knows it
    given: dict[str, str] = Field(default_factory=dict)  #: variables that the jobs before it told
    where: dict[str, Any] = Field(default_factory=dict)  #: image and services of its steps (`config.where`)
    shared: Shared | None = None  #: None = no other job of its run has to do with its files
    checkout: Checkout = Checkout()


class StopJob(Message):
    """Stop a script job: SIGTERM to its whole group, SIGKILL after `grace` seconds."""

    type: Literal["stop-job"] = "stop-job"
    fence: Whole
    code: str
    sentence: str
    grace: float = 10.0


class RunEnded(Message):
    """A run whose jobs share files has ended: nobody goes on with them."""

    type: Literal["run-ended"] = "run-ended"
    fence: Whole = 0
    project: str
    run: Whole


class JobStarted(Message):
    """The job's lane is ready and its first step is about to start."""

    type: Literal["job-started"] = "job-started"
    fence: Whole
    at: Whole
    node: str = ""


class JobRefused(Message):
    """The agent will not run this job at all (capability, step kind, policy)."""

    type: Literal["job-refused"] = "job-refused"
    fence: Whole
    at: Whole
    code: str
    sentence: str


class StepStarted(Message):
    """A step began; its log begins at `offset`."""

    type: Literal["step-started"] = "step-started"
    fence: Whole
    index: Whole
    name: str
    at: Whole
    offset: Whole


class StepFinished(Message):
    """A step ended; its log ends before `offset`."""

    type: Literal["step-finished"] = "step-finished"
    fence: Whole
    index: Whole
    at: Whole
    exit_code: Whole
    offset: Whole


class BaseImage(Message):
    """An image that another stands on, as the engine knows it: `image-id:NAME` when no registry named its digest."""

    reference: str
    digest: str


class BuiltImage(Message):
    """An image the job said it built or pushed, as the engine and the registry themselves describe it."""

    origin: Literal["local", "registry"]
    reference: str  #: what the script wrote
    repository: str
    image_id: str
    digest: str | None = None
    bases: tuple[BaseImage, ...] = ()


class JobFinished(Message):
    """A script job ended. `state` is succeeded, failed, cancelled or lost."""

    type: Literal["job-finished"] = "job-finished"
    fence: Whole
    at: Whole
    state: Literal["succeeded", "failed", "cancelled", "lost"]
    code: str = ""
    sentence: str = ""
    exit_code: Whole | None = None
    images: tuple[BuiltImage, ...] = ()
    outputs: dict[str, str] = Field(default_factory=dict)  #: what it told the jobs behind it, by name
    log_bytes: Whole = 0
