"""The shape of a flow file: what each part may hold, and what it means as a core object."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Strict

from keepflow.config.fields import (
    Argv,
    ContainerPath,
    Count,
    Duration,
    Env,
    EnvName,
    Flag,
    ImageName,
    Line,
    Model,
    Name,
    Names,
    OneOrMany,
    PathPatterns,
    Patterns,
    Port,
    Text,
    Texts,
    UrlPath,
    bad,
    is_time_zone,
)
from keepflow.config.where import BoxField, Services, Where
from keepflow.core import flows, matrix, retrying
from keepflow.core.priority import Priority
from keepflow.tools import cron

_EVERY = ("**",)
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,30}(?:/[A-Za-z0-9_+-]{1,30}){0,2}")


#: How long something may take.
Timeout = Annotated[Duration, Field(gt=0)]


#: What a script can end with when it does not succeed, and the other causes to try again.
ExitCode = Annotated[int, Strict(), Field(ge=1, le=255)]
Cause = Literal["exit", "timeout", "system", "lost"]


class Health(Model):
    """When a new container counts as healthy."""

    path: UrlPath = "/"  #: asked by HTTP with the public host name
    within: Timeout = 60.0  #: how long it may take until it is healthy
    successes: Count = 3  #: passes in a row that count as healthy
    timeout: Timeout = 2.0  #: of one try
    interval: Timeout = 0.1  #: between two tries


class Volume(Model):
    """A named volume of a container."""

    name: Name  #: the volume, kept over deploys
    at: ContainerPath  #: where it is mounted: an absolute path
    shared: Flag = False  #: two containers may write it at once


class ContainerSecret(Model):
    """A secret of the environment that a container reads."""

    name: EnvName  #: the secret
    #: `file`: the file `/run/secrets/NAME`. `env`: the variable NAME, which whoever is root on the host sees in
    #: `docker inspect`
    way: Literal["file", "env"] = Field(default="file", alias="as")


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class Container(Model):
    """The default description of one container."""

    port: Port = 8080  #: where the application listens inside the container
    health: Health = Health()  #: when a new container counts as healthy
    env: Env = Field(default_factory=dict)  #: variables; values are text, so write `"true"` and `"null"` in quotes
    #: secrets of the environment: a name alone is a file `/run/secrets/NAME`; `{name: NAME, as: env}` is a variable,
    #: which root sees in `docker inspect`
    secrets: tuple[
        Annotated[ContainerSecret, BeforeValidator(_named, json_schema_input_type=str | ContainerSecret)], ...
    ] = ()
    volumes: tuple[Volume, ...] = ()  #: named volumes
    args: Texts = ()  #: arguments for the image's entry point; without any the image's own
    #: `overlap`: new beside old, switch, then stop old (so it is without a word, too). `stop-first`: maintenance
    #: page, stop old, start new
    strategy: flows.Strategy | None = None
    stop_timeout: Duration = 30.0  #: between SIGTERM and SIGKILL
    release_command: Argv = ()  #: a program and its arguments, run once before the new container is started
    release_timeout: Timeout = 300.0  #: how long the release command may take

    def to_core(self) -> flows.Container:
        """Return the description that is frozen into releases."""
        return flows.Container(
            port=self.port,
            health=flows.Health(**self.health.model_dump()),
            env=dict(self.env),
            secrets=tuple(secret.name for secret in self.secrets),
            secrets_in_env=tuple(secret.name for secret in self.secrets if secret.way == "env"),
            volumes=tuple(flows.Volume(volume.name, volume.at, volume.shared) for volume in self.volumes),
            args=self.args,
            strategy=self.strategy or flows.Strategy.OVERLAP,
            stop_timeout=self.stop_timeout,
            release_command=self.release_command,
            release_timeout=self.release_timeout,
        )


def _cron(text: str) -> str:
    if sentence := cron.problem_of(text):
        raise bad("bad-cron", sentence)
    return " ".join(text.split())


def _zone(text: str) -> str:
    if not _ZONE.fullmatch(text) or not is_time_zone(text):
        raise bad("bad-zone", "must be a time zone this machine knows, like Asia/Shanghai or UTC")
    return text


class Schedule(Model):
    """When a flow starts by the clock."""

    cron: Annotated[str, AfterValidator(_cron)]  #: minute, hour, day, month, weekday, or `@daily` and its like
    tz: Annotated[str, AfterValidator(_zone)] = ""  #: time zone; without one UTC


def _schedule(value: Any) -> Any:
    return {"cron": value} if isinstance(value, str) else value


def _patterns(value: Any) -> Any:
    """Read `true` as every name, and `false` as not set."""
    return (_EVERY if value else None) if isinstance(value, bool) else value


SomePatterns = Annotated[Patterns | None, BeforeValidator(_patterns, json_schema_input_type=bool | Patterns)]


class On(Model):
    """Which events start a flow."""

    push: SomePatterns = None  #: a push to a branch that fits; `true`: to any
    tag: SomePatterns = None  #: a new tag that fits; `true`: any
    paths: PathPatterns = ()  #: of those pushes and pull requests the ones that change a file that fits
    paths_ignore: PathPatterns = ()  #: …and not only files that fit this
    pull_request: Flag = False  #: new code in a pull request: opened, reopened or pushed to
    manual: Flag = False  #: a person, `keepflow run` or the API
    #: the clock, at the newest commit of `main` or `master`
    schedule: Annotated[Schedule | None, BeforeValidator(_schedule, json_schema_input_type=str | Schedule)] = None

    def to_core(self) -> flows.Trigger:
        """Return the trigger the planner matches against."""
        return flows.Trigger(
            push=self.push or (),
            tag=self.tag or (),
            pull_request=self.pull_request,
            manual=self.manual,
            cron=self.schedule.cron if self.schedule else "",
            tz=self.schedule.tz if self.schedule else "",
            paths=self.paths,
            paths_ignore=self.paths_ignore,
        )


def _events(value: Any) -> Any:
    """Read `on: push` and `on: [push, manual]`."""
    words = [value] if isinstance(value, str) else value
    return dict.fromkeys(words, True) if isinstance(words, list) and all(isinstance(w, str) for w in words) else value


EventWord = Literal["push", "tag", "pull_request", "manual"]


def _yes_or_no(value: Any) -> Any:
    """Read a plain `true` as the text it is for a script."""
    return str(value).lower() if isinstance(value, bool) else value


class Input(Model):
    """A value a person gives when starting a flow by hand; scripts see it as `KEEPFLOW_INPUT_<NAME>`."""

    type: Literal["text", "boolean", "number"] = "text"  #: what a value must be
    choices: Texts = ()  #: the values allowed; without any every value of its type
    default: Annotated[Text, BeforeValidator(_yes_or_no)] = ""  #: what it is when nobody says
    required: Flag = False  #: nothing is started without it
    help: Text = ""  #: a line for people


class Retry(Model):
    """When a script job that ended badly is tried again."""

    max: Annotated[int, Strict(), Field(ge=1, le=20)]  #: tries after the first one, 1 to 20
    #: exit codes of the script after which another try follows
    on_exit: Annotated[tuple[ExitCode, ...], Field(min_length=1), OneOrMany()] = ()
    #: causes after which another try follows: `exit` (any exit code), `timeout`, `system` (the agent could not do
    #: it), `lost`
    on: Annotated[tuple[Cause, ...], Field(min_length=1), OneOrMany()] = ()
    delay: Duration = 0.0  #: how long the next try waits

    def to_core(self) -> retrying.Retry:
        """Return the rule that is frozen into plans."""
        return retrying.Retry(self.max, self.on_exit, self.on, self.delay)


def _retry(value: Any) -> Any:
    """Read `retry: 2`."""
    return {"max": value} if isinstance(value, int) and not isinstance(value, bool) else value


SomeRetry = Annotated[Retry | None, BeforeValidator(_retry, json_schema_input_type=int | Retry)]


class Axes(Model):
    """The values of a matrix: each with each, less `exclude`, and `include` besides."""

    #: values by the name of an axis; scripts see the one of their job as `KEEPFLOW_MATRIX_<NAME>`
    axes: dict[EnvName, Annotated[tuple[Text, ...], Field(min_length=1), OneOrMany()]] = Field(default_factory=dict)
    include: tuple[dict[EnvName, Text], ...] = ()  #: further combinations
    exclude: tuple[dict[EnvName, Text], ...] = ()  #: combinations that are left out; what they do not name is any value

    def to_core(self) -> matrix.Matrix:
        """Return the matrix the planner takes."""
        return matrix.Matrix(self.axes, self.include, self.exclude)


class Deploy(Model):
    """A deploy in full: where what was built is to serve."""

    environment: Name  #: the environment that gets what was built
    per_branch: Flag = False  #: every branch has an instance of its own there, removed when the branch goes


class Job(Model):
    """One job of a graph; what it does is read by `flow_jobs`, which knows the step kinds."""

    needs: Names = ()  #: jobs that must have ended before
    #: `success`: all it needs went well. `failure`: one of them failed, or was skipped because of a failure.
    #: `always`: they ended. Without a word `success`; `failure` for a job that others name under `failure`
    when: flows.When | None = None
    allow_failure: Flag = False  #: its failure stops no job behind it and does not make the run a failed one
    stage: Name | None = None  #: one of the flow's `stages`, required when it has any
    #: of a job with `steps`: how long one try at it may take; without one the flow's, else `2h`
    timeout: Timeout | None = None
    retry: SomeRetry = None  #: of a job with `steps`: when it is tried again; without one the flow's
    matrix: Axes | None = None  #: of a job with `steps`: it runs once for every combination of these values
    success: Names = ()  #: jobs that run when this one went well
    failure: Names = ()  #: jobs that run when this one failed
    labels: Names = ()  #: of a job with `steps`: labels that its agent must have, all of them; without any the flow's
    image: BoxField = None  #: of a job with `steps`: the image of the container they run in; without one the flow's
    services: Services = Field(default_factory=dict)  #: containers beside its steps; without any the flow's
    steps: Annotated[tuple[Any, ...], Field(min_length=1)] = ()  #: what it does, in this order (all but `deploy`)
    deploy: Any = None  #: instead of steps: the environment that gets what was built
    approve: Any = None  #: instead of steps: a question; the jobs behind it wait until a release manager says yes
    notify: Any = None  #: instead of steps: a channel of the master's file or a mail address, told how the run stands


class Checkout(Model):
    """What checkouts hold besides the files of the commit."""

    #: `true`: the submodules of the commit, `recursive`: theirs too; from addresses that the master's file allows the
    #: project (`submodules`)
    submodules: Flag | Literal["recursive"] = False
    lfs: Flag = False  #: the files that Git LFS keeps, instead of pointers to them; agents need no `git-lfs`

    def to_core(self) -> flows.Checkout:
        """Return what is frozen into plans."""
        return flows.Checkout("direct" if self.submodules is True else self.submodules or "", self.lfs)


class Concurrency(Model):
    """How runs meet that must not run at once."""

    #: flows of one group never run at once, on whatever branch; without one the flow is by itself
    group: Name | None = None
    mode: Literal["queue", "latest", "cancel"] = "queue"  #: as above


def _concurrency(value: Any) -> Any:
    """Read `concurrency: latest`."""
    return {"mode": value} if isinstance(value, str) else value


Mode = Literal["queue", "latest", "cancel"]
SomeConcurrency = Annotated[Concurrency, BeforeValidator(_concurrency, json_schema_input_type=Mode | Concurrency)]


class Flow(Model):
    """One flow; its work is read by `flow_file`, which knows the step kinds."""

    #: what starts the flow
    on: Annotated[On, BeforeValidator(_events, json_schema_input_type=EventWord | list[EventWord] | On)]
    #: how two runs of it meet: `queue` one after the other, `latest` a newer push takes the place of runs that
    #: still wait, `cancel` stops the running one too. A deploy is never cut half-way
    concurrency: SomeConcurrency = Concurrency()
    #: whose script jobs get a free agent first. Nobody starves: `high` counts as if it had come half an hour earlier,
    #: `low` as if half an hour later
    priority: Priority = Priority.NORMAL
    #: how long a run may take, from its first job on; then it ends `failed`, code `timeout`. A deployment that was
    #: sent goes on, and while a person is asked the time does not count
    timeout: Timeout | None = None
    retry: SomeRetry = None  #: when a script job of it is tried again, see [below](#further-tries)
    #: values for a start by hand; scripts see them as `KEEPFLOW_INPUT_<NAME>`
    inputs: dict[EnvName, Input] = Field(default_factory=dict)
    labels: Names = ()  #: labels that the agent of its jobs must have, all of them; an agent's own file gives it labels
    checkout: Checkout = Checkout()  #: submodules and Git LFS; without a word neither
    image: BoxField = None  #: the image of the container that steps run in; without one the agent's own machine
    services: Services = Field(
        default_factory=dict
    )  #: containers beside the steps of each job, by the name they answer to
    steps: Annotated[tuple[Any, ...], Field(min_length=1)] = ()  #: what it does, in this order; this or `jobs`
    #: what it does, as a graph of jobs; this or `steps`
    jobs: Annotated[dict[Name, Job], Field(min_length=1)] = Field(default_factory=dict)
    #: with `jobs`: names of stages, in their order
    stages: Annotated[tuple[Name, ...], Field(min_length=1), OneOrMany()] = ()

    @property
    def where(self) -> Where:
        """Where its steps run that say nothing of their own."""
        return Where(image=self.image, services=self.services)


def _version(value: Any) -> Any:
    if type(value) is not int or value != 1:
        raise bad("bad-value", "must be 1, the only version there is")
    return value


class File(Model):
    """A whole flow file."""

    version: Annotated[Literal[1], BeforeValidator(_version)] = 1  #: the only one there is
    #: repository name of the images that are released, like `shop` or `team/shop`: no registry address, no tag
    image: ImageName | None = None
    container: Container | None = None  #: default description of one container; frozen into every release
    flows: Annotated[dict[Name, Flow], Field(min_length=1)]  #: the flows, by name; at least one


#: A name people give to a step, and how long it may take.
StepName, StepTimeout, StepIdempotent = Line, Timeout, Flag
