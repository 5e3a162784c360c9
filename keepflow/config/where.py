"""Where the commands of a step or a job run: in a container of an image, with services beside it.

These keys are all there is. What would open the machine to a repository (privileges, the host's network, folders of the
host, the engine's socket, other accounts) has no key, so no file can ask for it.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, Strict, WithJsonSchema, model_validator

from keepflow.config.fields import (
    Argv,
    ContainerPath,
    EnvName,
    Interpolated,
    Model,
    Name,
    Port,
    SpelledDuration,
    Text,
    UrlPath,
    bad,
    size,
)
from keepflow.core.releases import ImageRef

BUILT_IMAGE = "BUILT_IMAGE"  #: stands for the image that this run built last
_LEAST_MEMORY = 6 * 2**20  #: bytes; engines refuse less


def _image(text: str) -> str:
    """Check a reference as far as it can be before its `${NAME}` are replaced."""
    if text != BUILT_IMAGE and "${" not in text:
        try:
            ImageRef.parse(text)
        except ValueError:
            raise bad("bad-image", f"must be an image like 'node:22', or {BUILT_IMAGE}") from None
    return text


def _memory(value: Any) -> Any:
    """Read a size with its unit; a plain number, as plans hold it, is bytes."""
    found = value if type(value) is int else size(value)
    if found < _LEAST_MEMORY:
        raise bad("bad-size", "must be a size of at least 6MiB, with its unit, like 512MB or 2GB")
    return found


def _env_line(text: str) -> str:
    if not text.isprintable():
        raise bad("bad-text", "must be one line of printable text")
    return text


EnvLine = Annotated[Text, AfterValidator(_env_line)]
Image = Annotated[Interpolated, AfterValidator(_image)]
Memory = Annotated[int, BeforeValidator(_memory), WithJsonSchema({"type": ["string", "integer"]})]
Cpus = Annotated[float, Strict(), Field(gt=0, le=1024)]
Pids = Annotated[int, Strict(), Field(ge=1, le=1_000_000)]
_Within = Annotated[SpelledDuration, Field(gt=0)]


class Limits(Model):
    """The most that one container may use; what is not said is what the host gives."""

    memory: Memory | None = None  #: the most memory it gets, like `512MB`; without it what the host gives
    cpus: Cpus | None = None  #: the most processors it gets, like `1.5`; without it what the host gives
    pids: Pids | None = None  #: the most processes and threads it gets; without it what the host gives


class Box(Limits):
    """The container that commands run in."""

    name: Image  #: the image, pulled when missing; `${NAME}` works; `BUILT_IMAGE` is the one this run built last
    at: ContainerPath | None = None  #: where the checkout lies in it; without it where it lies on the host


class Ready(Model):
    """When a service counts as ready: its port takes connections, a page answers, or a command in it ends well."""

    port: Port | None = None  #: it takes connections here
    http: UrlPath | None = None  #: and this page on that port answers with a status below 400
    command: Argv = ()  #: instead of a port: a program and its arguments, run in its container, that ends with 0
    within: _Within = 60.0  #: how long that may take; then the job fails and shows the service's last lines

    @model_validator(mode="after")
    def _one_way(self) -> Ready:
        if bool(self.command) == (self.port is not None):
            raise bad("bad-ready", "must name a port (with or without http), or a command")
        if self.http and self.port is None:
            raise bad("bad-ready", "http needs the port that is asked")
        return self


class Service(Limits):
    """A container beside the commands, reached under its own name."""

    image: Image  #: its image, as above
    env: dict[EnvName, EnvLine] = Field(
        default_factory=dict
    )  #: its variables, each one line; `docker inspect` shows them, so no secrets
    command: Argv = ()  #: a program and its arguments instead of what the image starts
    ready: Ready | None = None  #: what is waited for before the first command; without it nothing


def _short_box(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _short_service(value: Any) -> Any:
    return {"image": value} if isinstance(value, str) else value


BoxField = Annotated[Box | None, BeforeValidator(_short_box, json_schema_input_type=str | Box)]
ServiceField = Annotated[Service, BeforeValidator(_short_service, json_schema_input_type=str | Service)]
Services = dict[Name, ServiceField]


class Where(Model):
    """Where commands run; nothing said is the agent's own machine."""

    image: BoxField = None  #: the container that commands run in
    ssh: Name | None = None  #: instead of an image: the host they run on, as the agent's file calls it
    services: Services = Field(default_factory=dict)  #: containers beside it

    @model_validator(mode="after")
    def _one_place(self) -> Where:
        if self.image and self.ssh:
            raise bad("two-places", "has an image and ssh; commands run in one place")
        return self

    def plain(self) -> dict[str, Any]:
        """Return it as plain data for plans and orders; `Where.model_validate` reads it back."""
        return self.model_dump(mode="json", exclude_defaults=True)


#: The keys of a step that say where it runs.
KEYS = tuple(Where.model_fields)
