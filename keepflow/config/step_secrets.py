"""`secrets:` of a step: which secrets of the project it gets, and how."""

from __future__ import annotations

import re
from posixpath import normpath
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, model_validator

from keepflow.config.fields import EnvName, Flag, Model, OneOrMany, RelativePath, bad
from keepflow.core import job_secrets
from keepflow.core.job_secrets import is_owned

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _variable(text: str) -> str:
    if is_owned(text):
        raise bad("bad-name", "must not be a variable that keepflow or the system gives a meaning to")
    return text


Variable = Annotated[EnvName, AfterValidator(_variable)]


def _secret_name(text: str) -> str:
    if not job_secrets.NAME.fullmatch(text):
        raise bad("bad-name", "must be the name of a secret: letters, digits and . _ -, the first a letter or _")
    return text


class SecretUse(Model):
    """One secret that a step gets: as a variable, as a file in the checkout, or as a file elsewhere."""

    name: Annotated[str, AfterValidator(_secret_name)]
    env: Variable | None = None
    file: RelativePath | None = None
    file_env: Variable | None = None
    optional: Flag = False  #: the step runs without it where its run does not get it

    @model_validator(mode="after")
    def _one_way(self) -> SecretUse:
        ways = [way for way in ("env", "file", "file_env") if getattr(self, way)]
        if len(ways) > 1:
            raise bad("conflict", f"{' and '.join(ways)} are two ways; write one entry for each")
        if not ways and not _ENV_NAME.fullmatch(self.name):
            raise bad("needs-choice", "its name is none of a variable, so it needs 'env', 'file' or 'file_env'")
        if not ways and is_owned(self.name):
            raise bad("bad-name", "its name is a variable that keepflow gives a meaning to; add 'env'")
        return self

    def to_core(self) -> job_secrets.SecretUse:
        """Return what the plan holds."""
        env = self.env or ("" if self.file or self.file_env else self.name)
        file = normpath(self.file) if self.file else ""
        return job_secrets.SecretUse(self.name, env, file, self.file_env or "", self.optional)


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _each_once(uses: tuple[SecretUse, ...]) -> tuple[SecretUse, ...]:
    wanted = [use.to_core() for use in uses]
    variables = [name for use in wanted for name in (use.env, use.file_env) if name]
    files = [use.file for use in wanted if use.file]
    for places in (variables, files):
        if double := next((place for place in places if places.count(place) > 1), None):
            raise bad("conflict", f"two secrets go to {double}")
    return uses


class StepSecrets(Model):
    """What a step is given, beside its kind."""

    secrets: Annotated[
        tuple[Annotated[SecretUse, BeforeValidator(_named, json_schema_input_type=str | SecretUse)], ...],
        AfterValidator(_each_once),
        OneOrMany(),
    ] = ()
