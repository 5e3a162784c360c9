"""Which server the command line talks to, with which token: flag, then environment, then file, then this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from keepflow import errors
from keepflow.config.home import Home, default_home

_HOW = (
    "set KEEPFLOW_URL and KEEPFLOW_TOKEN_FILE, write them to ~/.config/keepflow/config.yml, or run this on the "
    "master's own machine as the user that runs it"
)


@dataclass(frozen=True, slots=True)
class Server:
    """One master, the token for it, and where they came from (`told_by`, for messages)."""

    url: str
    token: str = field(repr=False)
    told_by: str
    local: bool = False
    ca_file: str = ""

    def __post_init__(self) -> None:
        if not self.url.startswith(("https://", "http://")):
            raise errors.UsageError(
                f"{self.url[:200]!r} is not the address of a master; write https://…", code="bad-url"
            )
        if not (self.token.isascii() and self.token.isprintable() and self.token):
            raise errors.AuthError(f"this is no token: one line of plain letters ({self.told_by})", code="bad-token")


def find_server(url: str | None, token_file: str | None, env: Mapping[str, str]) -> Server:
    """Find the server: `--url` and `--token-file`, KEEPFLOW_URL with KEEPFLOW_TOKEN or KEEPFLOW_TOKEN_FILE, config.yml,
    the master running here. A `--token-file` is used for any of them. Raises AuthError or UsageError that says what is
    missing and how to give it.
    """
    ca_file = env.get("KEEPFLOW_CA_FILE", "")
    address = url or env.get("KEEPFLOW_URL")
    if address:
        token, told_by = _token(token_file, env)
        return Server(address, token, told_by, ca_file=ca_file)
    found = _configured(env) or _local()
    if token_file:
        found = replace(found, token=_read(token_file), told_by=f"token from {token_file}")
    return found


def _token(token_file: str | None, env: Mapping[str, str]) -> tuple[str, str]:
    if token_file:
        return _read(token_file), f"token from {token_file}"
    if env.get("KEEPFLOW_TOKEN"):
        return env["KEEPFLOW_TOKEN"], "token from KEEPFLOW_TOKEN"
    if env.get("KEEPFLOW_TOKEN_FILE"):
        return _read(env["KEEPFLOW_TOKEN_FILE"]), f"token from {env['KEEPFLOW_TOKEN_FILE']}"
    raise errors.AuthError("no token: set KEEPFLOW_TOKEN_FILE or KEEPFLOW_TOKEN, or give --token-file", code="no-token")


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.UsageError(f"{path}: cannot read the token: {error}", code="no-token") from None


def _configured(env: Mapping[str, str]) -> Server | None:
    """Read the context in use from config.yml: `{current: NAME, contexts: {NAME: {url, token_file, ca_file}}}`."""
    path = Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "keepflow" / "config.yml"
    if not path.exists():
        return None
    from keepflow.config.yaml_loader import load

    found: Any = load(path.read_text(), str(path)).value
    contexts = found.get("contexts", {}) if isinstance(found, dict) else {}
    name = env.get("KEEPFLOW_CONTEXT") or (found.get("current") if isinstance(found, dict) else None)
    chosen = contexts.get(name) if isinstance(contexts, dict) else None
    if not isinstance(chosen, dict) or not isinstance(chosen.get("url"), str):
        known = ", ".join(map(str, contexts)) or "none"
        raise errors.UsageError(f"{path}: no context {name!r} with a url; there are: {known}", code="no-context")
    token_file = str(chosen.get("token_file", ""))
    token, told_by = _token(str(path.parent / token_file) if token_file else None, env)
    return Server(chosen["url"], token, told_by, ca_file=str(chosen.get("ca_file", "")))


def _local() -> Server:
    home = Home.at(default_home())
    try:
        url = str(json.loads(home.address_file.read_text())["url"])
    except FileNotFoundError:
        raise errors.UsageError(f"no server: no master runs on {home.root}; {_HOW}", code="no-server") from None
    except PermissionError:
        raise errors.AuthError(f"{home.root} belongs to another user; {_HOW}", code="no-server") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.UsageError(f"{home.address_file} cannot be read: {error}; {_HOW}", code="no-server") from None
    return Server(url, _read(str(home.admin_token)), f"token from {home.admin_token}", local=True)


def terminal(stream: Any) -> bool:
    """Say whether a person is at this end of a stream."""
    try:
        return os.isatty(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
