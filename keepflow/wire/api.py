"""The REST API's models: what `/api/v1` takes and answers, and what its OpenAPI document is made from.

Inside, times are UTC microseconds; in JSON they are RFC 3339 texts. Requests forbid unknown keys. Answers may grow new
keys; a key never changes its meaning and never goes away within `/api/v1`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from keepflow.wire.desired import Desired, PlanLine


def rfc3339(micros: int) -> str:
    """Return a time as people and machines read it."""
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Moment = Annotated[
    int,
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]


class Answer(BaseModel):
    """Base of everything that goes out."""

    model_config = ConfigDict(frozen=True)


class Request(BaseModel):
    """Base of everything that comes in; secrets never show in its repr."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Problem(Answer):
    """An error, as RFC 9457 has it; `code` is stable and meant for programs, `detail` for people."""

    type: str
    title: str
    status: int
    code: str
    detail: str


# --- runs ------------------------------------------------------------------------------------------------------------


class Run(Answer):
    """One run. Every state but running and succeeded carries a reason code and a sentence."""

    id: int
    project: str
    number: int
    flow: str
    state: str
    reason_code: str
    reason: str
    event: str
    ref: str
    sha: str
    message: str
    actor: str
    why: str
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None


class RunPage(Answer):
    """Runs, newest first; `next` is the `before` of the following page, or null at the end."""

    items: list[Run]
    next: int | None


class Step(Answer):
    """One command of a script job; `meaning` says what its exit code usually means."""

    ordinal: int
    name: str
    state: str
    exit_code: int | None
    meaning: str
    log_from: int
    log_to: int | None
    started_at: Moment
    finished_at: Moment | None


class Attempt(Answer):
    """One try at a job; `fence` names it everywhere, the log stream included."""

    n: int
    fence: int
    state: str
    reason_code: str
    reason: str
    agent: str | None
    exit_code: int | None
    log_bytes: int
    started_at: Moment | None
    finished_at: Moment | None
    steps: list[Step]


class Change(Answer):
    """One setting that differs between what serves and what would serve; null means not set."""

    setting: str
    before: str | None
    after: str | None


class Phase(Answer):
    """One phase of a deployment, as the agent reported it."""

    phase: str
    at: Moment
    detail: str


class Deployment(Answer):
    """One try to make a host of an environment serve a release; `run` is the run that carries it out.

    `silence` is a sentence while nothing is heard of the agent that has it.
    """

    id: str
    project: str
    environment: str
    host: str
    kind: str
    phase: str
    reason_code: str
    reason: str
    silence: str | None
    requested_by: str
    note: str
    run: int
    built_by: int
    sha: str
    identity: str
    identity_before: str | None
    changes: list[Change]
    phases: list[Phase]
    canary: list[int]
    canary_step: int | None
    receipt: dict[str, Any] | None
    receipt_verdict: str
    log_tail: str
    requested_at: Moment
    accepted_at: Moment | None
    finished_at: Moment | None


class HostReceipt(Answer):
    """What one host of a run ended with; `receipt` is the agent's own account of the switch."""

    host: str
    environment: str
    deployment: str
    kind: str
    phase: str
    code: str
    reason: str
    identity: str
    receipt: dict[str, Any] | None


class RunReceipt(Answer):
    """What all hosts of a run proved together: probes sent and failed at their front doors, the p99 of the worst.

    `maintenance` is the seconds that visitors saw the maintenance page, added up.
    """

    project: str
    run: int
    state: str
    hosts: list[HostReceipt]
    sent: int
    failed: int
    p99_ms: float | None
    maintenance: float


class DeploymentReceipt(Answer):
    """The signed receipt of a deployment, as its agent sent it.

    `verdict` is what the master found when it came: `good`; `bad` when the agent's key did not sign it, or when it says
    something else than the agent reported; `none` when none came. `public_key` is the agent's as registered now.
    """

    deployment: str
    verdict: str
    envelope: dict[str, Any] | None
    agent: str
    public_key: str


class DeploymentPage(Answer):
    """Deployments of an environment, newest first."""

    items: list[Deployment]
    next: int | None


class Job(Answer):
    """One job of a run, with every attempt at it; a deploy job has its deployment."""

    key: str
    kind: str
    state: str
    reason_code: str
    reason: str
    needs: list[str]
    started_at: Moment | None
    finished_at: Moment | None
    attempts: list[Attempt]
    deployment: Deployment | None


class Release(Answer):
    """What a run produced; only what a registry holds is `promotable`."""

    origin: str
    repository: str
    reference: str
    image_id: str
    digest: str | None
    identity: str
    promotable: bool
    sha: str
    created_at: Moment


class RunDetail(Run):
    """One run with its jobs and releases."""

    superseded_by: int | None
    delivery: int | None
    agent: str | None
    jobs: list[Job]
    releases: list[Release]


class RunsQuery(Request):
    """Which runs."""

    flow: str | None = Field(default=None, max_length=40)
    state: str | None = Field(default=None, max_length=12)
    branch: str | None = Field(default=None, max_length=255)
    before: int | None = Field(default=None, ge=1, le=2**53, description="`next` of the page before this one")
    limit: int = Field(default=30, ge=1, le=200)


class NewRun(Request):
    """Start a flow by hand. `ref` is a branch, a tag or a full ref name; without it, the main branch."""

    flow: str = Field(max_length=40)
    ref: str = Field(default="", max_length=255)
    inputs: dict[str, str] = Field(default_factory=dict, max_length=50)


class Started(Answer):
    """A run that was started."""

    run: int
    url: str


class Cancelled(Answer):
    """What became of a cancel: `cancelled`, `stopping`, or `too-late` for a deployment that was accepted."""

    word: str
    sentence: str


class LogQuery(Request):
    """Which part of a log: a byte range, or the last lines."""

    job: str | None = Field(default=None, max_length=60, description="only this job")
    tail: int | None = Field(default=None, ge=1, le=100_000, description="only the last lines")


# --- deliveries ------------------------------------------------------------------------------------------------------


class Delivery(Answer):
    """One webhook call and what was decided about it. `decision` is null until intake has looked."""

    id: int
    delivery: str
    forge: str
    event_name: str
    word: str
    handled: bool
    event: dict[str, Any] | None
    decision: dict[str, Any] | None
    received_at: Moment
    handled_at: Moment | None


class DeliveryPage(Answer):
    """Deliveries, newest first."""

    items: list[Delivery]
    next: int | None


class PageQuery(Request):
    """Which page of a list."""

    before: int | None = Field(default=None, ge=1, le=2**53, description="`next` of the page before this one")
    limit: int = Field(default=30, ge=1, le=200)


# --- environments ----------------------------------------------------------------------------------------------------


class Serving(Answer):
    """What an environment was last made to serve."""

    deployment: str
    identity: str
    sha: str
    message: str
    ref: str
    run: int
    by: str
    since: Moment


class Candidate(Answer):
    """A release that can be offered for promotion; `serves` says that it is there already."""

    run: int
    identity: str
    sha: str
    message: str
    since: Moment
    serves: bool


class Host(Answer):
    """One host of an environment, by its agent's name. `drift` says that something else serves than was deployed."""

    agent: str
    online: bool
    serving: Serving | None
    observed: str | None
    drift: str | None
    underway: Deployment | None
    failed: Deployment | None


class Steering(Request):
    """A word to a canary that is under way; with `percent` only if it is at that step."""

    word: Literal["continue", "hold", "abort"]
    percent: int | None = Field(default=None, ge=1, le=99)


class Steered(Answer):
    """The hosts that were told."""

    hosts: list[str]


class Quarantine(Answer):
    """A release that did badly in an environment; it does not go there again until somebody lifts that."""

    identity: str
    deployment: str
    code: str
    sentence: str
    at: Moment
    lifted_by: str | None
    lifted_why: str
    lifted_at: Moment | None


class QuarantineQuery(Request):
    """Whether those that were lifted are wanted, too."""

    lifted: bool = False


class Lift(Request):
    """Let a release (its digest) go to an environment again, and say why."""

    identity: str = Field(max_length=80)
    why: str = Field(min_length=1, max_length=2000)


class Secret(Answer):
    """A secret of an environment: its name and version, never its value."""

    name: str
    version: int
    set_by: str
    at: Moment


class SecretValue(Request):
    """The value of a secret; it is sealed at once and never shown again."""

    value: str = Field(repr=False, min_length=1, max_length=64 * 1024)


class Readiness(Answer):
    """What going back would take: `how` is hot, cold, re-pull or impossible; the sentence says why."""

    how: str
    sentence: str
    run: int | None
    identity: str | None


class Environment(Answer):
    """One place where a release serves, on one host or several.

    `serving` is what it was made to serve last, `mixed` says that not all of its hosts do; `drift`, `underway` and
    `failed` are what there is to say of any host. `hosts` has each of them.
    """

    project: str
    name: str
    hosts: list[Host]
    mixed: bool
    max_unavailable: int
    on_failure: str
    service: str
    branches: list[str]
    promote_from: str | None
    promotes_to: list[str]
    verified_by: list[str]
    approved_by: list[str]
    url: str
    serving: Serving | None
    drift: str | None
    underway: Deployment | None
    failed: Deployment | None
    locked_by: str | None
    locked_why: str | None
    quarantined: list[Quarantine]
    locked_at: Moment | None
    marks: list[Mark]
    gate: Gate | None
    candidates: list[Candidate]
    rollback: Readiness
    sentence: str


class Guard(Answer):
    """One rule of a promote: met or not, with its sentence, and whether breaking the glass may override it."""

    code: str
    met: bool
    sentence: str
    overridable: bool


class Commit(Answer):
    """One commit; every text in it came from outside."""

    sha: str
    subject: str
    author: str
    at: Moment


class Preview(Answer):
    """What a promote would do, without doing it. `direction` is first, same, forward or back (then say `rollback`).

    `allowed` says that every rule is met; `breakable`, that breaking the glass may override those that are not. `order`
    is a sentence about how several `hosts` are switched, "" for one.
    """

    project: str
    environment: str
    run: int
    identity: str
    sha: str
    serving: str | None
    allowed: bool
    breakable: bool
    direction: str
    guards: list[Guard]
    commits: list[Commit]
    leaving: list[Commit]
    changes: list[Change]
    stop_first: bool
    hosts: list[str]
    order: str


class OrderKey(Answer):
    """A public key that signs, or once signed, orders and receipts."""

    key: str
    key_id: str
    current: bool
    replaced_at: Moment | None = None
    replaced_by: str = ""  #: the person who had the next one made


class Evidence(Answer):
    """What is proven about a digest: the envelopes as they were signed, and the keys that signed them.

    There is nothing in it that no signature covers, and one way to write it down, so that one changed byte is found.
    """

    version: Literal[1] = 1
    digest: str
    keys: list[str]
    receipts: list[dict[str, Any]]  #: DSSE envelopes of in-toto statements, oldest first
    orders: list[dict[str, Any]]  #: DSSE envelopes of the orders by which the digest was deployed, oldest first


class Preparation(Answer):
    """An image laid on a host ahead of a promote (`stage`), or a rehearsal; it never changes what serves."""

    id: str
    environment: str
    host: str
    kind: str
    phase: str
    reason_code: str
    reason: str
    identity: str
    requested_by: str
    receipt: dict[str, Any] | None
    log_tail: str
    requested_at: Moment
    finished_at: Moment | None


class Readying(Answer):
    """How ready the hosts of an environment are for a promote: which have the image, what its rehearsals said."""

    on_host: list[str]
    hosts: list[str]
    rehearsals: list[Preparation]
    may_rehearse: bool
    guards: list[Guard]
    loses_hot: bool = Field(description="a rehearsal would take the slot of a container kept hot for a rollback")


class Rehearsal(Request):
    """Rehearse a release (run number or digest) on the hosts of an environment. `key` makes asking twice safe."""

    source: str = Field(max_length=120)
    key: str | None = Field(default=None, min_length=8, max_length=40, pattern=r"^[0-9A-Za-z-]+$")


class Countersigned(Request):
    """A provenance of the master's with the signature of a key that it does not hold, and that key."""

    envelope: dict[str, Any]
    key: str = Field(max_length=80)


class PreviewQuery(Request):
    """What would be promoted: a run number or a digest; `rollback` says that it may be older than what serves."""

    source: str = Field(max_length=120)
    rollback: bool = False


class Promotion(Request):
    """Promote one release: name a run or an identity (digest). `key` makes asking twice the same as asking once.

    `rollback` must be said to go back to something older than what serves. `break_glass` is the reason for overriding
    rules that may be overridden. `serving` is what you saw serving ("" for nothing): when it changed, you are refused.
    """

    run: int | None = Field(default=None, ge=1, le=2**31 - 1)
    identity: str | None = Field(default=None, max_length=80)
    note: str = Field(default="", max_length=2000)
    rollback: bool = False
    break_glass: str | None = Field(default=None, max_length=2000)
    serving: str | None = Field(default=None, max_length=80)
    key: str | None = Field(default=None, min_length=8, max_length=40, pattern=r"^[0-9A-Za-z-]+$")
    canary: list[int] = Field(default_factory=list, max_length=5)
    hold: int = Field(default=60, ge=1, le=24 * 3600)


class Difference(Answer):
    """One thing on a host that is not as it was deployed."""

    what: str
    expected: str
    found: str


class HostDrift(Answer):
    """How one host differs from what was deployed there; no difference, no drift."""

    agent: str
    differences: list[Difference]


class Drift(Answer):
    """How an environment differs from what was deployed, host by host."""

    environment: str
    drifts: bool
    hosts: list[HostDrift]


class MendDrift(Request):
    """`adopt`: what serves is expected from now on, nothing is touched. `restore`: what was deployed serves again."""

    way: Literal["adopt", "restore"]
    reason: str = Field(default="", max_length=2000)
    key: str | None = Field(default=None, min_length=8, max_length=40, pattern=r"^[0-9A-Za-z-]+$")


class RollbackPreview(Answer):
    """What a rollback would do, without doing it; without a target there is no way back."""

    project: str
    environment: str
    run: int | None
    identity: str | None
    sha: str | None
    serving: str | None
    allowed: bool
    guards: list[Guard]
    ready: Readiness
    leaving: list[Commit]
    coming: list[Commit]
    changes: list[Change]


class RollbackQuery(Request):
    """Where to go back to: a run number or a digest; empty means what served before."""

    source: str = Field(default="", max_length=120)


class Rollback(Request):
    """Go back to a release that served here before; empty `source` means the last one.

    `key` makes asking twice the same as asking once.
    """

    source: str = Field(default="", max_length=120)
    reason: str = Field(default="", max_length=2000)
    key: str | None = Field(default=None, min_length=8, max_length=40, pattern=r"^[0-9A-Za-z-]+$")


class MarkRequest(Request):
    """What a tester says of a deployment: name it, or a run whose release served there; else what serves is meant."""

    verdict: Literal["tested", "rejected"]
    note: str = Field(default="", max_length=2000)
    deployment: str | None = Field(default=None, max_length=40)
    run: int | None = Field(default=None, ge=1, le=2**31 - 1)


class Mark(Answer):
    """What a tester said of one deployment of one image."""

    person: str
    verdict: str
    note: str
    deployment: str
    identity: str
    at: Moment


class LockRequest(Request):
    """Why an environment is locked; everybody who waits reads it."""

    why: str = Field(min_length=1, max_length=500)


class Lock(Answer):
    """Who holds an environment still, why and since when; all null when nobody does."""

    locked_by: str | None
    locked_why: str | None
    locked_at: Moment | None


class Gate(Answer):
    """The release that waits at an environment's gate, what it waits for, and when it lapses."""

    run: int
    identity: str
    sentence: str
    opened_at: Moment
    lapses_at: Moment


class GateRequest(Request):
    """Which release to open the gate for anew: a run number or a digest."""

    source: str = Field(min_length=1, max_length=120)


class Overridden(Answer):
    """One rule that was not kept."""

    code: str
    sentence: str


class BrokenGlass(Answer):
    """A deployment outside the rules; it stays in sight until somebody else than `actor` acknowledged it."""

    number: int
    environment: str
    deployment: str
    actor: str
    reason: str
    overridden: list[Overridden]
    at: Moment
    acknowledged_by: str | None
    acknowledged_at: Moment | None


# --- the server ------------------------------------------------------------------------------------------------------


class Project(Answer):
    """One repository the master knows; its secrets are never told."""

    name: str
    repo: str
    forge: str
    flow_file: str
    images: list[str]
    managed: bool
    environments: list[str]


class Agent(Answer):
    """One agent, as it last described itself."""

    name: str
    capabilities: list[str]
    labels: list[str]
    slots: int
    connected: bool
    offline_why: str
    version: str
    warnings: list[str]
    environments: list[str]
    key_id: str
    revoked: bool
    last_seen_at: Moment | None
    created_at: Moment


class NewAgent(Request):
    """The name an agent may join under."""

    name: str = Field(max_length=40)


class JoinToken(Answer):
    """A one-time join token; it is told this once."""

    agent: str
    token: str
    command: str


class User(Answer):
    """One person."""

    name: str
    email: str
    admin: bool
    disabled: bool
    has_password: bool
    created_at: Moment


class NewUser(Request):
    """A person to add."""

    name: str = Field(max_length=60)
    email: str = Field(default="", max_length=200)
    admin: bool = False


class Invited(Answer):
    """A user and the one-time link by which they set a password; it is told this once."""

    user: User
    link: str


class SetDisabled(Request):
    """Whether a user is shut out."""

    disabled: bool


class Group(Answer):
    """A named list of people; `managed` ones belong to the server file."""

    name: str
    managed: bool
    members: list[str]


class SetGroup(Request):
    """Exactly these members."""

    members: list[Annotated[str, Field(max_length=60)]] = Field(max_length=1000)


class Role(Answer):
    """One role in one project, held by a user or a group."""

    project: str
    role: str
    user: str | None
    group: str | None


class SetRole(Request):
    """Give a role to a user or a group; null takes it away."""

    user: str = Field(default="", max_length=60)
    group: str = Field(default="", max_length=40)
    role: str | None = Field(max_length=20)


class Token(Answer):
    """One API token, without the token."""

    id: int
    user: str
    name: str
    scopes: list[str]
    created_at: Moment
    expires_at: Moment | None
    used_at: Moment | None
    revoked: bool


class NewToken(Request):
    """An API token to make, for oneself, or as an admin for `user`."""

    name: str = Field(min_length=1, max_length=60)
    scopes: list[str] = Field(min_length=1, max_length=10)
    days: int | None = Field(default=90, ge=1, le=3650)
    user: str = Field(default="", max_length=60)


class MadeToken(Answer):
    """A new API token; it is told this once."""

    token: str


class Apply(Request):
    """A whole server file; with `dry_run` only the plan is made."""

    desired: Desired
    dry_run: bool = False


class Applied(Answer):
    """What an apply did or would do."""

    lines: list[PlanLine]
    applied: bool


class WhoAmI(Answer):
    """Who the caller is."""

    name: str
    admin: bool
    scopes: list[str]


class Items(Answer):
    """Base of short lists that come whole."""


class OrderKeys(Items):
    """A list of order keys, the one in use first."""

    items: list[OrderKey]


class Projects(Items):
    """All projects the caller may see."""

    items: list[Project]


class Environments(Items):
    """All environments of a project, in the order of the board."""

    items: list[Environment]
    warnings: list[str] = Field(description="What is weak about how this project reaches production, and its cure")


class Quarantines(Items):
    """Releases under quarantine, newest first."""

    items: list[Quarantine]


class Secrets(Items):
    """The secrets an environment has, by name."""

    items: list[Secret]


class Marks(Items):
    """Every mark of what serves in an environment, oldest first; the newest of a person counts."""

    items: list[Mark]


class BrokenGlasses(Items):
    """What nobody has acknowledged yet, oldest first."""

    items: list[BrokenGlass]


class Agents(Items):
    """All agents the caller may see."""

    items: list[Agent]


class Users(Items):
    """All users."""

    items: list[User]


class Groups(Items):
    """All groups."""

    items: list[Group]


class Roles(Items):
    """The roles of a project."""

    items: list[Role]


class Tokens(Items):
    """API tokens."""

    items: list[Token]
