"""Secrets on this host: the newest sealed values, kept for cold rollbacks, and the files that containers read.

    secrets/            0700
      <service>/<instance>/sealed.json        0600  sealed to this agent's key
      <service>/<instance>/files/<id>/NAME    0444  mounted read-only as /run/secrets

The files lie on the disk: after a reboot the engine starts containers before the agent runs, and a container whose
mount is gone stays down. Nobody but the agent's account and root gets through the 0700 directory above them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keepflow import errors
from keepflow.agent.deployment import Deployment
from keepflow.agent.logs import Log
from keepflow.crypto.sealing import OpeningKey
from keepflow.tools.failpoints import fail
from keepflow.tools.files import write_atomic
from keepflow.wire.orders import secret_place

log = Log(__name__)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Held:
    """One secret's value and version; the value never shows itself."""

    version: int
    value: str

    def __repr__(self) -> str:
        return f"Held(version={self.version})"


class HeldSecrets:
    """The secrets of all services of this host; `root` is made when something is kept."""

    def __init__(self, root: Path, opening: OpeningKey) -> None:
        self._root, self._opening = root, opening

    def check(self, deployment: Deployment, sealed: Mapping[str, str]) -> None:
        """Raise Refused `secrets-mismatch` unless exactly what the order names came with it, and opens here."""
        named = {one.name: one.sha256 for one in deployment.secrets}
        if not all(_NAME.fullmatch(name) for name in named):  # it becomes the name of a file
            raise errors.Refused("the order names a secret as no variable may be named", code="secrets-mismatch")
        if len(named) != len(deployment.secrets) or set(named) != set(sealed):
            raise errors.Refused("other secrets came than the order names", code="secrets-mismatch")
        if strange := [name for name in named if name not in deployment.container.secrets]:
            raise errors.Refused(
                f"the order brings secrets that the container does not name: {', '.join(strange)}",
                code="secrets-mismatch",
            )
        for name, entry in self._entries(deployment, sealed).items():
            try:
                blob = base64.b64decode(entry["blob"], validate=True)
                if hashlib.sha256(blob).hexdigest() != named[name]:
                    raise errors.BadSeal(name)
                self._open(name, entry)
            except (binascii.Error, ValueError, errors.BadSeal):
                raise errors.Refused(
                    f"the value of {name} is not the one that the order names, or is not sealed for it and this agent",
                    code="secrets-mismatch",
                ) from None

    def keep(self, deployment: Deployment, sealed: Mapping[str, str]) -> None:
        """Keep what came with an order that was checked; what its environment has no more is forgotten here, too."""
        known = self._known(deployment)
        wanted = {name: entry for name, entry in known.items() if name not in deployment.container.secrets}
        wanted |= self._entries(deployment, sealed)
        if wanted != known:
            place = self._place(deployment)
            place.mkdir(parents=True, exist_ok=True)
            self._root.chmod(0o700)
            fail("secrets.keep")
            write_atomic(place / "sealed.json", json.dumps(wanted).encode(), 0o600)

    def values(self, deployment: Deployment) -> dict[str, Held]:
        """Return what a deployment gets: what its order named, or, asked for on this host, the newest of each name."""
        ordered = {one.name for one in deployment.secrets}
        names = deployment.container.secrets if deployment.by else ordered
        found = {}
        for name, entry in self._known(deployment).items():
            if name in names:
                try:
                    found[name] = Held(entry["version"], self._open(name, entry))
                except (errors.BadSeal, ValueError):
                    log.warning("a secret kept here does not open", service=deployment.service, name=name)
        return found

    def render(self, deployment: Deployment, values: Mapping[str, str]) -> Path | None:
        """Write the files of a deployment's container and return their directory; None when there are none."""
        if not values:
            return None
        place = self._place(deployment) / "files" / _directory(deployment.id)
        place.mkdir(parents=True, exist_ok=True)
        self._root.chmod(0o700)
        place.chmod(0o755)  # the container's user, whoever that is, gets in by the mount
        for name, value in values.items():
            fail("secrets.render")
            write_atomic(place / name, value.encode(), 0o444)
        return place

    def drop_files(self, deployment: Deployment, needed: Collection[str]) -> None:
        """Remove the files of all deployments of this instance but these."""
        keep = {_directory(one) for one in needed}
        for place in (self._place(deployment) / "files").glob("*"):
            if place.name not in keep:
                shutil.rmtree(place)

    def forget(self, deployment: Deployment) -> None:
        """Remove all that is kept for an instance."""
        shutil.rmtree(self._place(deployment), ignore_errors=True)

    def _entries(self, deployment: Deployment, sealed: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        return {
            one.name: {
                "version": one.version,
                "order": deployment.id,
                "fence": deployment.fence,
                "environment": deployment.environment,
                "blob": sealed[one.name],
            }
            for one in deployment.secrets
        }

    def _open(self, name: str, entry: Mapping[str, Any]) -> str:
        place = secret_place(entry["order"], entry["fence"], entry["environment"], name, entry["version"])
        return self._opening.unseal(base64.b64decode(entry["blob"]), place).decode()

    def _known(self, deployment: Deployment) -> dict[str, dict[str, Any]]:
        """Return what is kept for an instance under its environment; what another environment left is no business."""
        path = self._place(deployment) / "sealed.json"
        found: dict[str, dict[str, Any]] = json.loads(path.read_bytes()) if path.exists() else {}
        return {name: entry for name, entry in found.items() if entry["environment"] == deployment.environment}

    def _place(self, deployment: Deployment) -> Path:
        return self._root / deployment.service / deployment.instance


def _directory(deployment: str) -> str:
    """Return a safe directory name: the asker chooses the id of a deployment."""
    return hashlib.sha256(deployment.encode()).hexdigest()[:32]
