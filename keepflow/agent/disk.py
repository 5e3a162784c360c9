"""Room for an image before it is pulled: what keepflow itself no longer needs goes first, and nothing else ever."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import NamedTemporaryFile

from keepflow.agent.scene import Scene
from keepflow.core import names
from keepflow.core.loopback import is_loopback
from keepflow.core.releases import ImageRef
from keepflow.errors import DeployFailed, RegistryError, UsageError
from keepflow.ports import RegistryLogin
from keepflow.tools.registry import Registry

_UNPACKED = 2  #: times the compressed size an image takes while it is pulled and unpacked


def make_room(scene: Scene) -> None:
    """Return when an image can be pulled and the reserve stays free; raises DeployFailed `disk-full`."""
    deployment, reserve = scene.deployment, scene.policy.reserve
    size = _UNPACKED * image_size(deployment.repository, deployment.digest or "", scene.policy.login)
    if _is_enough(scene, size + reserve):
        return
    _let_go(scene)
    free = scene.target.free()
    if free is not None and free < size + reserve:
        image = f"the image takes about {_shown(size)} while it is unpacked, " if size else ""
        raise DeployFailed(
            f"{_shown(free)} are free where the engine keeps its images; {image}{_shown(reserve)} must stay free "
            "(reserve: in agent.yml); free some space",
            code="disk-full",
        )


def image_size(repository: str, digest: str, login: RegistryLogin | None) -> int:
    """Return the bytes of an image's layers as its registry holds them, 0 when the registry does not say."""
    reference = ImageRef.parse(repository)
    with NamedTemporaryFile("w", suffix=".pem") as authority:
        authority.write(login.ca_pem if login else "")
        authority.flush()
        ca_file = Path(authority.name) if login and login.ca_pem else None
        for plain in (
            (False, True) if is_loopback(reference.domain.rpartition(":")[0] or reference.domain) else (False,)
        ):
            try:
                registry = Registry(
                    reference.domain,
                    login.username if login and login.username else None,
                    login.password if login and login.username else None,
                    ca_file,
                    plain_http=plain,
                )
                return _layers(registry.manifest(reference.path, digest).body)
            except (RegistryError, UsageError, ValueError):
                continue
    return 0


def _layers(body: bytes) -> int:
    layers = json.loads(body).get("layers", [])
    return sum(int(layer.get("size", 0)) for layer in layers if isinstance(layer, dict))


def _is_enough(scene: Scene, wanted: int) -> bool:
    free = scene.target.free()
    return free is None or free >= wanted


def _let_go(scene: Scene) -> None:
    """Drop what keepflow kept here beyond what is promised: never what serves, nor what a rollback needs."""
    service, instance = scene.deployment.service, scene.deployment.instance
    scene.remove_aside()
    promised = {*scene.instance.history().identities, scene.deployment.identity}
    needed = {names.keep_tag(service, instance, identity) for identity in promised}
    for tag, _ in scene.target.kept(names.keep_tag(service, instance, "").rstrip(":")):
        if tag not in needed:
            scene.say(f"lets go of {tag} to make room")
            scene.target.drop(tag)


def _shown(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
