"""How a master process is started: flag, then environment, then the default."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from keepflow import errors
from keepflow.config.home import Home, default_home

_PREFIX = "KEEPFLOW_"
_LISTEN = "127.0.0.1:7070"
#: Settings that may hold a password; each can also be given as the name of a file, `KEEPFLOW_<NAME>_FILE`.
_SECRET = ("database",)


class MasterSettings(BaseSettings):
    """Settings of one master. Each has the environment variable `KEEPFLOW_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore", frozen=True, env_ignore_empty=True)

    home: Path = Field(default_factory=default_home)
    listen: str = _LISTEN  #: HOST:PORT
    url: str | None = None  #: public address; None = the one in the database, else the one listened on
    database: str | None = Field(default=None, repr=False)  #: URL; None = keepflow.db in the home
    #: Addresses or networks of proxies whose X-Forwarded-For and -Proto are believed; none by default.
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError("write HOST:PORT, such as 127.0.0.1:7070 or [::1]:7070")
        return value

    @field_validator("url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("write the address people use, such as https://ci.example.org")
        return value.rstrip("/")

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _proxies(cls, value: Any) -> Any:
        names = value.split(",") if isinstance(value, str) else value
        return tuple(str(ip_network(name.strip(), strict=False)) for name in names if name.strip())

    @property
    def host(self) -> str:
        """The address that is listened on."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port that is listened on; 0 = any free one."""
        return int(self.listen.rpartition(":")[2])

    def place(self) -> Home:
        """Return the home as a place with names."""
        return Home.at(self.home)

    def database_url(self) -> str:
        """Return the URL of the database."""
        return self.database or f"sqlite:///{self.place().database}"


def load_settings(**flags: Any) -> MasterSettings:
    """Read the settings; flags that are None were not given. Raises UsageError naming every wrong value."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return MasterSettings.model_validate(_from_files(given) | given)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}" for item in error.errors()
        )
        raise errors.UsageError(f"wrong setting: {wrong}", code="setting") from None


def _from_files(given: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _SECRET:
        variable = f"{_PREFIX}{name.upper()}"
        path = os.environ.get(f"{variable}_FILE")
        if path and name not in given and not os.environ.get(variable):
            try:
                found[name] = Path(path).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise errors.UsageError(f"{variable}_FILE: {path} cannot be read: {error}", code="setting") from None
    return found
