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
)
from keepflow.core import flows, retrying

_EVERY = ("**",)
_CRON_WORDS = frozenset({"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"})
_CRON_FIELD = re.compile(r"[0-9A-Za-z*/,()#-]{1,60}")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,30}(?:/[A-Za-z0-9_+-]{1,30}){0,2}")


#: How long something may take.
Timeout = Annotated[Duration, Field(gt=0)]


#: What a script can end with when it does not succeed, and the other causes to try again.
ExitCode = Annotated[int, Strict(), Field(ge=1, le=255)]
Cause = Literal["exit", "timeout", "system", "lost"]


class Health(Model):
    """When a new container counts as healthy."""

    path: UrlPath = "/"
    within: Timeout = 60.0
    successes: Count = 3
    timeout: Timeout = 2.0
    interval: Timeout = 0.1


class Volume(Model):
    """A named volume of a container."""

    name: Name
    at: ContainerPath
    shared: Flag = False


class Container(Model):
    """The default description of one container."""

    port: Port = 8080
    health: Health = Health()
    env: Env = Field(default_factory=dict)
    secrets: tuple[EnvName, ...] = ()
    volumes: tuple[Volume, ...] = ()
    args: Texts = ()
    strategy: flows.Strategy | None = None
    stop_timeout: Duration = 30.0
    release_command: Argv = ()
    release_timeout: Timeout = 300.0

    def to_core(self) -> flows.Container:
        """Return the description that is frozen into releases."""
        return flows.Container(
            port=self.port,
            health=flows.Health(**self.health.model_dump()),
            env=dict(self.env),
            secrets=self.secrets,
            volumes=tuple(flows.Volume(volume.name, volume.at, volume.shared) for volume in self.volumes),
            args=self.args,
            strategy=self.strategy or flows.Strategy.OVERLAP,
            stop_timeout=self.stop_timeout,
            release_command=self.release_command,
            release_timeout=self.release_timeout,
        )


def _cron(text: str) -> str:
    fields = text.split()
    if text not in _CRON_WORDS and (len(fields) != 5 or not all(map(_CRON_FIELD.fullmatch, fields))):
        raise bad("bad-cron", "must be five fields like '0 2 * * *' (minute hour day month weekday) or @daily")
    return " ".join(fields)


def _zone(text: str) -> str:
    if not _ZONE.fullmatch(text):
        raise bad("bad-zone", "must be a time zone like Asia/Shanghai or UTC")
    return text


class Schedule(Model):
    """When a flow starts by the clock."""

    cron: Annotated[str, AfterValidator(_cron)]
    tz: Annotated[str, AfterValidator(_zone)] = ""


def _schedule(value: Any) -> Any:
    return {"cron": value} if isinstance(value, str) else value


def _patterns(value: Any) -> Any:
    """Read `true` as every name, and `false` as not set."""
    return (_EVERY if value else None) if isinstance(value, bool) else value


SomePatterns = Annotated[Patterns | None, BeforeValidator(_patterns, json_schema_input_type=bool | Patterns)]


class On(Model):
    """Which events start a flow."""

    push: SomePatterns = None
    tag: SomePatterns = None
    paths: PathPatterns = ()
    paths_ignore: PathPatterns = ()
    pull_request: Flag = False
    manual: Flag = False
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


class Input(Model):
    """A value a person gives when starting a flow by hand; scripts see it as `KEEPFLOW_INPUT_<NAME>`."""

    choices: Texts = ()
    default: Text = ""
    help: Text = ""

    @property
    def misfit(self) -> bool:
        """Whether the default is none of the choices."""
        return bool(self.choices and self.default) and self.default not in self.choices


class Retry(Model):
    """When a script job that ended badly is tried again."""

    max: Annotated[int, Strict(), Field(ge=1, le=20)]
    on_exit: Annotated[tuple[ExitCode, ...], Field(min_length=1), OneOrMany()] = ()
    on: Annotated[tuple[Cause, ...], Field(min_length=1), OneOrMany()] = ()
    delay: Duration = 0.0

    def to_core(self) -> retrying.Retry:
        """Return the rule that is frozen into plans."""
        return retrying.Retry(self.max, self.on_exit, self.on, self.delay)


def _retry(value: Any) -> Any:
    """Read `retry: 2`."""
    return {"max": value} if isinstance(value, int) and not isinstance(value, bool) else value


SomeRetry = Annotated[Retry | None, BeforeValidator(_retry, json_schema_input_type=int | Retry)]


class Job(Model):
    """One job of a graph; what it does is read by `flow_jobs`, which knows the step kinds."""

    needs: Names = ()
    when: flows.When | None = None
    allow_failure: Flag = False
    stage: Name | None = None
    timeout: Timeout | None = None
    retry: SomeRetry = None
    success: Names = ()
    failure: Names = ()
    steps: Annotated[tuple[Any, ...], Field(min_length=1)] = ()
    deploy: Any = None
    approve: Any = None
    notify: Any = None


class Flow(Model):
    """One flow; its work is read by `flow_file`, which knows the step kinds."""

    on: Annotated[On, BeforeValidator(_events, json_schema_input_type=EventWord | list[EventWord] | On)]
    concurrency: Literal["queue", "latest", "cancel"] = "queue"
    timeout: Timeout | None = None
    retry: SomeRetry = None
    inputs: dict[EnvName, Input] = Field(default_factory=dict)
    steps: Annotated[tuple[Any, ...], Field(min_length=1)] = ()
    jobs: Annotated[dict[Name, Job], Field(min_length=1)] = Field(default_factory=dict)
    stages: Annotated[tuple[Name, ...], Field(min_length=1), OneOrMany()] = ()


def _version(value: Any) -> Any:
    if type(value) is not int or value != 1:
        raise bad("bad-value", "must be 1, the only version there is")
    return value


class File(Model):
    """A whole flow file."""

    version: Annotated[Literal[1], BeforeValidator(_version)] = 1
    image: ImageName | None = None
    container: Container | None = None
    flows: Annotated[dict[Name, Flow], Field(min_length=1)]


#: A name people give to a step, and how long it may take.
StepName, StepTimeout = Line, Timeout
