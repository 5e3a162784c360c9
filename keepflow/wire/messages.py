"""What master and agent say to each other over the agent's one outbound WebSocket.

Text frames are JSON objects with a `type`; unknown keys are ignored (an N-1 peer must be able to talk). Log bytes
travel as binary frames: `LOG_HEADER` (fence, offset) followed by the bytes. The order of a session:

    master: challenge → agent: hello → master: welcome | refused → both: the rest, until one says farewell

Downwards, everything with effect is a `send` (a row of the `outgoing` table): it is repeated on every session until the
agent has it on disk and says `received`. Upwards, everything with effect is a `report` with a number the agent's disk
gave it: repeated until `reported` comes back. Both sides must take repeats as said once. Times are UTC microseconds.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from keepflow.core.events import Trust
from keepflow.core.flows import Step

PROTOCOL = (1, 1)  #: [lowest, highest] version this build speaks
LOG_HEADER = struct.Struct(">QQ")  #: fence, offset of the first byte in the attempt's log
LOG_FRAME_LIMIT = 256 * 1024  #: bytes of log in one frame
FRAME_LIMIT = 1024 * 1024
HEARTBEAT_SECONDS = 10.0

#: Among an agent's step kinds: it gives some flows containers (`image:`, `services:`).
CONTAINERS = "containers"
#: Before the name of a host, likewise: it takes steps of some flows there (`ssh:`).
SSH = "ssh:"

Whole = Annotated[int, Field(ge=0, lt=2**63)]  #: a number that a database can hold
DeploymentId = Annotated[str, Field(max_length=100)]


class Message(BaseModel):
    """Base of all messages: immutable, unknown keys ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


# --- handshake -------------------------------------------------------------------------------------------------------


class Challenge(Message):
    """Master: prove your key on this nonce."""

    type: Literal["challenge"] = "challenge"
    nonce: str
    master_time: Whole
    protocol: tuple[int, int] = PROTOCOL


class Hello(Message):
    """Agent: who I am is my key alone; `signature` covers `hello_bytes(nonce, …)`."""

    type: Literal["hello"] = "hello"
    key_id: str
    signature: str  #: base64 over hello_bytes()
    nonce: str  #: the agent's own, for the master to sign in `welcome`
    protocol: tuple[int, int] = PROTOCOL
    version: str
    capabilities: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    slots: Whole = 1  #: script jobs it runs at once
    step_kinds: tuple[str, ...] = ()
    highest_fence: Whole = 0
    running: tuple[Whole, ...] = ()  #: fences of jobs and deployments it holds
    machine_id: str = ""
    warnings: tuple[str, ...] = ()  #: what this host knows to be weak, for people
    sealing_key: str = ""  #: base64 of the X25519 key that secrets are sealed to; "" = this agent takes none
    sealing_proof: str = ""  #: base64 over sealing_bytes(), by the agent's own key


class Welcome(Message):
    """Master: taken; `proof` is the master's order key over `welcome_bytes(agent nonce)`."""

    type: Literal["welcome"] = "welcome"
    agent: str
    protocol: Whole
    proof: str
    master_time: Whole
    heartbeat: float = HEARTBEAT_SECONDS
    acked_logs: dict[int, int] = Field(default_factory=dict)  #: fence → bytes the master holds safely
    rotations: tuple[dict[str, Any], ...] = ()  #: every new order key so far, oldest first (`crypto.rotation`)


class Refused(Message):
    """Master: not taken, and why; the agent keeps its identity and tries again later."""

    type: Literal["refused"] = "refused"
    code: str
    sentence: str


class Farewell(Message):
    """Either side: closing on purpose; come back after `retry` seconds."""

    type: Literal["farewell"] = "farewell"
    sentence: str = ""
    retry: float = 0.5


def hello_bytes(challenge_nonce: str, key_id: str, own_nonce: str) -> bytes:
    """Return what an agent signs: bound to the challenge, the key and the agent's own nonce."""
    return f"keepflow-agent-hello-v1\n{challenge_nonce}\n{key_id}\n{own_nonce}".encode()


def sealing_bytes(key_id: str, sealing_key: str) -> bytes:
    """Return what an agent signs to say which key secrets are to be sealed to."""
    return f"keepflow-agent-sealing-v1\n{key_id}\n{sealing_key}".encode()


def welcome_bytes(agent_nonce: str, agent: str) -> bytes:
    """Return what the master signs in `welcome`."""
    return f"keepflow-master-welcome-v1\n{agent_nonce}\n{agent}".encode()


# --- downwards -------------------------------------------------------------------------------------------------------


class SecretUse(Message):
    """How a step gets one of the job's secrets: exactly one of the last three is set (`core.job_secrets`)."""

    name: str
    env: str = ""
    file: str = ""
    file_env: str = ""


class Shared(Message):
    """What a job shares with others of its run: it goes on with the files of `bases`, which must be on this host.

    `followers` jobs go on with its own files. `tracked` asks to note which files it changes: some job of the run goes
    on with several. What two bases both changed ends the job, unless it is `lenient`: then the first one counts.
    """

    bases: tuple[str, ...] = ()
    followers: Whole = 0
    tracked: bool = False
    lenient: bool = False
    again: bool = False  #: it may be tried again, so what its bases left must stay


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


class Deploy(Message):
    """Carry out the signed order inside; `fence` repeats the order's for log frames, never as authority."""

    type: Literal["deploy"] = "deploy"
    fence: Whole
    deployment: DeploymentId
    envelope: dict[str, Any]
    secrets: dict[str, str] = Field(default_factory=dict, repr=False)  #: name → base64, sealed to the agent's key


class Steer(Message):
    """A signed word about a canary that is under way (`wire.orders.CanaryOrder`)."""

    type: Literal["steer"] = "steer"
    fence: Whole
    deployment: DeploymentId
    envelope: dict[str, Any]


class KeyRotated(Message):
    """The order key has changed; the envelope inside says to which, under the old key's signature and the new one's."""

    type: Literal["key-rotated"] = "key-rotated"
    fence: Whole = 0
    envelope: dict[str, Any]


Body = Annotated[RunJob | StopJob | RunEnded | Deploy | Steer | KeyRotated, Field(discriminator="type")]


class Send(Message):
    """One row of the master's `outgoing` table."""

    type: Literal["send"] = "send"
    id: Whole
    body: Body


class Reported(Message):
    """Master: reports up to this number are committed."""

    type: Literal["reported"] = "reported"
    number: Whole


class LogAck(Message):
    """Master: log bytes of this attempt up to `offset` are masked and fsynced."""

    type: Literal["log-ack"] = "log-ack"
    fence: Whole
    offset: Whole


# --- upwards ---------------------------------------------------------------------------------------------------------


class Received(Message):
    """Agent: these `send` ids are on my disk."""

    type: Literal["received"] = "received"
    ids: tuple[Whole, ...]


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


class DeployAnswer(Message):
    """The agent took an order, or refused it with the name of the check that failed."""

    type: Literal["deploy-answer"] = "deploy-answer"
    fence: Whole
    deployment: DeploymentId
    at: Whole
    accepted: bool
    code: str = ""
    sentence: str = ""


class DeployPhase(Message):
    """A deployment entered a phase (or says more about the one it is in)."""

    type: Literal["deploy-phase"] = "deploy-phase"
    fence: Whole
    deployment: DeploymentId
    at: Whole
    phase: str
    detail: str = ""


class DeployFinished(Message):
    """A deployment ended: done, failed, reverted or unknown, with its receipt."""

    type: Literal["deploy-finished"] = "deploy-finished"
    fence: Whole
    deployment: DeploymentId
    at: Whole
    outcome: Literal["done", "failed", "reverted", "unknown"]
    code: str = ""
    sentence: str = ""
    serving: str | None = None  #: identity that serves now
    receipt: dict[str, Any] = Field(default_factory=dict)
    envelope: dict[str, Any] | None = None  #: `wire.deployment_receipt`, signed by the agent's key; holds `receipt`
    log_tail: str = ""  #: last lines of a new container that did not make it


class HostRollback(Message):
    """A person on the host rolled back there, without an order; told whenever the agent can.

    One that ended `unknown` is told again, under the same id, when it has settled.
    """

    type: Literal["host-rollback"] = "host-rollback"
    fence: Whole  #: of the last order accepted before; it names no attempt
    deployment: DeploymentId
    asked_at: Whole
    at: Whole
    by: str  #: "host:ann"
    service: str
    instance: str
    origin: Literal["local", "registry"]
    repository: str
    image_id: str
    digest: str | None = None
    description: dict[str, Any]
    outcome: Literal["done", "failed", "reverted", "unknown"]
    code: str = ""
    sentence: str = ""
    serving: str | None = None
    receipt: dict[str, Any] = Field(default_factory=dict)
    log_tail: str = ""


ReportBody = Annotated[
    JobStarted
    | JobRefused
    | StepStarted
    | StepFinished
    | JobFinished
    | DeployAnswer
    | DeployPhase
    | DeployFinished
    | HostRollback,
    Field(discriminator="type"),
]


class Report(Message):
    """One numbered report from the agent's disk; numbers rise by one per agent state directory."""

    type: Literal["report"] = "report"
    number: Whole
    body: ReportBody


class KeptRelease(Message):
    """One release that does not serve: `hot` (it runs), `cold` (on the disk), `gone`, or `staged` for a promote."""

    identity: str
    how: str
    bytes: Whole = 0
    hot_until: Whole | None = None


class Difference(Message):
    """One thing on the host that is not as the agent left it."""

    what: str  #: "flags", "visitors", "slot", "container", "image"
    expected: str
    found: str


class ServiceState(Message):
    """What one service on the host serves right now."""

    service: str
    instance: str
    environment: str
    slot: str | None = None
    identity: str | None = None
    deployment: str | None = None
    since: Whole | None = None
    healthy: bool | None = None
    note: str = ""
    busy: bool = False  #: a deployment is under way here, or its end is still to be told
    image_id: str | None = None  #: what the engine calls the image of the container that answers
    container: str | None = None  #: its id
    ours: bool | None = None  #: whether a deployment made it
    differences: tuple[Difference, ...] = ()
    kept: tuple[KeptRelease, ...] | None = None  #: None = this agent does not tell
    address: str = ""  #: where visitors find it; "" = this agent does not tell
    given: tuple[str, ...] | None = None  #: names that the host's env_file holds; None = this agent does not tell


class Heartbeat(Message):
    """Agent: alive, on this clock, holding these attempts, serving this."""

    type: Literal["heartbeat"] = "heartbeat"
    at: Whole
    running: tuple[Whole, ...] = ()
    services: tuple[ServiceState, ...] = ()
    free_bytes: Whole | None = None


class Beat(Message):
    """Master: answer to a heartbeat, with its own clock."""

    type: Literal["beat"] = "beat"
    master_time: Whole


FromMaster = Annotated[
    Challenge | Welcome | Refused | Farewell | Send | Reported | LogAck | Beat, Field(discriminator="type")
]
FromAgent = Annotated[Hello | Received | Report | Heartbeat | Farewell, Field(discriminator="type")]

from_master: TypeAdapter[FromMaster] = TypeAdapter(FromMaster)
from_agent: TypeAdapter[FromAgent] = TypeAdapter(FromAgent)


# --- enrolment, over HTTPS ------------------------------------------------------------------------------------------


class Enrol(Message):
    """`POST /agents/enrol`: a join token is burnt for a key; its text ends with the master's key fingerprint."""

    token: str = Field(repr=False)
    public_key: str
    proof: str  #: base64 signature of the token by the new key
    version: str
    machine_id: str = ""


class Enrolled(Message):
    """Answer to `Enrol`: the agent's name and the master's public order key, to be pinned."""

    agent: str
    order_key: str
    url: str


# --- who the master is, over HTTPS, for whoever asks ----------------------------------------------------------------


class Proven(Message):
    """Answer to `GET /agents/proof?nonce=…`: the master's order key signed `proof_bytes(nonce)`."""

    proof: str  #: base64
    key_id: str
    master_time: Whole
    version: str


def proof_bytes(nonce: str) -> bytes:
    """Return what the master signs to show that it holds its order key; good for nothing else."""
    return f"keepflow-master-proof-v1\n{nonce}".encode()
