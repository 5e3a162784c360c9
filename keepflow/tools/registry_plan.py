"""What a registry of one's own is to be, and the files that say so to docker-registry and nginx."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from keepflow import errors
from keepflow.tools.files import read_private, write_atomic
from keepflow.tools.shipped import shipped

_LONGEST_SOCKET = 100  #: bytes; the kernel allows 107
_SAFE_PATH = re.compile(r"/[A-Za-z0-9._+@,/-]+")
_LISTEN = re.compile(r"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\]):([0-9]{1,5})")
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Plan:
    """A registry in `home`: `listen` is `IP:PORT` (IPv6 in brackets), `names` what clients call this host."""

    home: Path
    listen: str
    names: tuple[str, ...]
    data: Path
    push_user: str
    pull_user: str

    @classmethod
    def saved(cls, home: Path) -> Plan | None:
        """Return what `save` wrote in this home, or None."""
        try:
            found = json.loads((home / "registry" / "plan.json").read_text())
            return cls(
                home,
                found["listen"],
                tuple(found["names"]),
                Path(found["data"]),
                found["push_user"],
                found["pull_user"],
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            raise errors.UsageError(
                f"{home}/registry/plan.json cannot be read; remove it and give all options"
            ) from None

    def save(self) -> None:
        """Remember the plan, so that the next `up` needs no options."""
        told = {**asdict(self), "home": str(self.home), "data": str(self.data)}
        write_atomic(self.run / "plan.json", json.dumps(told, indent=1).encode(), 0o600)

    def check(self) -> None:
        """Raise UsageError for anything that docker-registry or nginx would misread."""
        for path in (self.home, self.data):
            if _SAFE_PATH.fullmatch(str(path)) is None:
                raise errors.UsageError(
                    f"{path}: the path must be absolute, of plain letters, digits and . _ + @ , - /"
                )
        if len(os.fsencode(self.socket)) > _LONGEST_SOCKET:
            raise errors.UsageError(f"{self.socket}: too long for a socket; choose a shorter --home")
        for user in (self.push_user, self.pull_user):
            if _USER.fullmatch(user) is None:
                raise errors.UsageError(f"not a user name: {user[:80]!r}")
        if self.push_user == self.pull_user:
            raise errors.UsageError("the push user and the pull user must differ: the pull user may not push")
        self.address  # noqa: B018 - raises for a listen that is none

    @property
    def run(self) -> Path:
        """The private directory of processes, sockets and configuration."""
        return self.home / "registry"

    @property
    def socket(self) -> Path:
        """Where docker-registry listens."""
        return self.run / "registry.sock"

    @property
    def authority(self) -> Path:
        """The certificate that clients must trust."""
        return self.home / "registry-ca.crt"

    @property
    def address(self) -> tuple[str, int]:
        """The address and port this machine reaches it at; raises UsageError."""
        match = _LISTEN.fullmatch(self.listen)
        try:
            place = ipaddress.ip_address((match[1] or match[2]) if match else "")
            port = int(match[3]) if match else 0
            if not 0 < port < 65536 or (place.version == 6) != bool(match and match[2]):
                raise ValueError
        except ValueError:
            raise errors.UsageError(f"--listen must be IP:PORT, such as 127.0.0.1:5000, not {self.listen!r}") from None
        if place.is_unspecified:
            return ("127.0.0.1" if place.version == 4 else "::1"), port
        return str(place), port

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host the certificate is for."""
        return tuple(dict.fromkeys((*self.names, self.address[0], "localhost", "127.0.0.1", "::1")))

    @property
    def called(self) -> str:
        """The address people and machines use: the first name, else where it listens."""
        host, port = self.address
        name = self.names[0] if self.names else host
        return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"

    def password_file(self, role: str) -> Path:
        """Where the password of the `push` or `pull` user lies."""
        return self.home / f"registry.{role}.password"

    def password(self, role: str) -> str:
        """Return the password of a role, made at random when there is none yet."""
        path = self.password_file(role)
        if not path.exists():
            write_atomic(path, secrets.token_urlsafe(32).encode() + b"\n", 0o600)
        return read_private(path).decode().strip()

    def registry_text(self) -> str:
        """Return the configuration of docker-registry; JSON is YAML."""
        return json.dumps(
            {
                "version": "0.1",
                "log": {"level": "warn", "accesslog": {"disabled": True}},
                "storage": {"filesystem": {"rootdirectory": str(self.data)}, "delete": {"enabled": True}},
                "http": {"net": "unix", "addr": str(self.socket), "secret": self._upload_secret()},
            },
            indent=1,
        )

    def front_text(self) -> str:
        """Return the configuration of the nginx in front."""
        from jinja2 import Environment, StrictUndefined

        # No escaping: nginx is no HTML, and every value passed `check`.
        environment = Environment(undefined=StrictUndefined, autoescape=False, trim_blocks=True)  # noqa: S701 - no HTML
        return environment.from_string(shipped("nginx", "registry.conf.j2").read_text()).render(
            run=self.run,
            listen=self.listen,
            certificate=self.home / "registry.crt",
            key=self.home / "registry.key",
            user="root" if os.geteuid() == 0 else "",
        )

    def logins(self) -> dict[str, str]:
        """Return the password files of nginx: who may do anything, and who may at least read."""
        push = _htpasswd(self.push_user, self.password("push"))
        return {"push.htpasswd": push, "all.htpasswd": push + _htpasswd(self.pull_user, self.password("pull"))}

    def _upload_secret(self) -> str:
        """Signs the state of uploads, so that one may go on after a restart."""
        path = self.run / "upload.secret"
        if not path.exists():
            write_atomic(path, secrets.token_hex(32).encode(), 0o600)
        return read_private(path).decode()


def _htpasswd(user: str, password: str) -> str:
    """Hash fast: these passwords are 32 random bytes, and nginx checks one for every request of every layer.

    The salt comes from the password, so that the same password gives the same file.
    """
    salt = hashlib.sha256(b"salt:" + password.encode()).digest()[:8]
    digest = hashlib.sha1(password.encode() + salt, usedforsecurity=False).digest()
    return f"{user}:{{SSHA}}{base64.b64encode(digest + salt).decode()}\n"
