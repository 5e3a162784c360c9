"""A Docker engine as the place where containers serve.

The engine's error texts are shown to people and never decided upon: what to do next follows from status codes and from
looking at the engine again. Only what `SlotSpec` says reaches a container; there is no way to hand options through.
"""

from __future__ import annotations

import ipaddress
import math
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from keepflow.core import names
from keepflow.core.bases import Layered
from keepflow.errors import DeployFailed, Unavailable
from keepflow.ports import ContainerFacts, EngineFacts, ImageFacts, RegistryLogin, SlotSpec
from keepflow.targets._containers import facts, settings, subnets
from keepflow.targets._pulling import follow
from keepflow.tools.failpoints import fail

if TYPE_CHECKING:
    from docker import APIClient
    from docker.errors import APIError

_TAIL_BYTES = 64 * 1024
_REMOVAL_SECONDS = 30.0


class Docker:
    """Fits `ports.Target`; its methods may be called from every thread. `timeout` is for one answer, in seconds."""

    def __init__(self, base_url: str = "unix:///var/run/docker.sock", timeout: float = 60.0) -> None:
        self._base_url = base_url
        self._timeout = timeout
        self._client: APIClient | None = None
        self._making = threading.Lock()

    def ping(self) -> None:
        """Raise Unavailable `engine-unreachable` when the engine does not answer."""
        with self._engine() as engine:
            engine.ping()

    def facts(self) -> EngineFacts:
        """Return who the engine is; raises Unavailable `engine-unreachable`."""
        with self._engine() as engine:
            said = engine.version()
            return EngineFacts(str(said["Version"]), str(said["ApiVersion"]), str(engine.info()["DockerRootDir"]))

    def networks(self) -> list[tuple[str, str, bool]]:
        """List (name, subnet, whether it is a slot network of ours) of every network with addresses."""
        with self._engine() as engine:
            known = engine.networks()
        ours = names.LABEL_SERVICE
        return [(one["Name"], subnet, ours in (one["Labels"] or {})) for one in known for subnet in subnets(one)]

    def try_login(self, login: RegistryLogin) -> None:
        """Have the engine itself log in at a registry, and keep nothing; raises DeployFailed `engine-refused`."""
        with self._engine() as engine:
            engine.login(login.username, login.password, registry=login.address, reauth=True)

    def free(self) -> int | None:
        """Return the bytes that are free where the engine keeps its images, None when that is not on this machine."""
        with self._engine() as engine:
            root = str(engine.info().get("DockerRootDir") or "")
        try:
            return shutil.disk_usage(root).free if root else None
        except OSError:
            return None

    def image(self, reference: str) -> ImageFacts | None:
        """Return the facts of an image on disk (by id, `repo@digest` or tag), or None."""
        from docker.errors import NotFound

        with self._engine() as engine:
            try:
                found = engine.inspect_image(reference)  # type: ignore[no-untyped-call]  # the stub forgot it
            except NotFound:
                return None
        return ImageFacts(found["Id"], tuple(found.get("RepoDigests") or ()), int(found.get("Size") or 0))

    def layered(self) -> list[Layered]:
        """List the images that have a name, each with its layers; one that vanishes meanwhile is left out."""
        from docker.errors import NotFound

        found = []
        with self._engine() as engine:
            for image_id in dict.fromkeys(one["Id"] for one in engine.images()):
                try:
                    seen = engine.inspect_image(image_id)  # type: ignore[no-untyped-call]  # the stub forgot it
                except NotFound:
                    continue
                known = (*(seen.get("RepoTags") or ()), *(seen.get("RepoDigests") or ()))
                layers = tuple((seen.get("RootFS") or {}).get("Layers") or ())
                found.append(Layered(image_id, known, layers, str(seen.get("Created") or "")))
        return [one for one in found if one.names]

    def pull(self, repository: str, digest: str, login: RegistryLogin | None, say: Callable[[str], None]) -> ImageFacts:
        """Pull exactly this digest and return what is on disk then.

        Raises DeployFailed `image-missing`, `pull-failed` or `digest-mismatch`.
        """
        from docker.errors import APIError, NotFound

        reference = f"{repository}@{digest}"
        account = {"username": login.username, "password": login.password} if login else {}
        with self._engine() as engine:
            try:
                # An empty account, not None: with None the SDK would read the login of whoever runs the agent.
                lines = engine.pull(repository, tag=digest, stream=True, decode=True, auth_config=account)
                follow(lines, reference, say)
            except NotFound as error:
                raise DeployFailed(f"{reference}: the registry does not have it", code="image-missing") from error
            except APIError as error:
                raise DeployFailed(f"{reference} cannot be pulled: {_words(error)}", code="pull-failed") from error
        facts = self.image(reference)
        if facts is None or reference not in facts.repo_digests:
            raise DeployFailed(
                f"{reference} was pulled, but the engine does not know it as that", code="digest-mismatch"
            )
        return facts

    def keep(self, image_id: str, tag: str) -> None:
        """Tag an image locally so that no prune removes it; raises DeployFailed `image-missing`."""
        from docker.errors import NotFound

        repository, _, name = tag.rpartition(":")
        with self._engine() as engine:
            try:
                engine.tag(image_id, repository, name)
            except NotFound as error:
                raise DeployFailed(f"the image {image_id} is not on this engine", code="image-missing") from error

    def kept(self, repository: str) -> list[tuple[str, str]]:
        """List (tag, image id) of the keep-tags of one repository name."""
        with self._engine() as engine:
            images = engine.images(name=repository)
        tags = [(tag, image["Id"]) for image in images for tag in image.get("RepoTags") or ()]
        return sorted((tag, image_id) for tag, image_id in tags if tag.startswith(f"{repository}:"))

    def drop(self, reference: str) -> None:
        """Remove one keep-tag, and the image when nothing else names or uses it; gone already is fine."""
        found = self.image(reference)
        if found is None:
            return
        with self._engine() as engine:
            if _unless_refused(lambda: engine.remove_image(reference)) and not self._tags(found.image_id):
                _unless_refused(lambda: engine.remove_image(found.image_id))

    def _tags(self, image_id: str) -> list[str]:
        with self._engine() as engine:
            found = _unless_missing(lambda: engine.inspect_image(image_id))  # type: ignore[no-untyped-call]  # see above
        return (found or {}).get("RepoTags") or []

    def network(self, name: str, subnet: str, labels: Mapping[str, str]) -> None:
        """Make sure the slot network exists with this subnet.

        Raises DeployFailed `network-overlap` or `network-failed`.
        """
        from docker.errors import APIError
        from docker.types import IPAMConfig, IPAMPool

        with self._engine() as engine:
            existing = self._network(name)
            if existing is None:
                gateway = str(next(ipaddress.IPv4Network(subnet).hosts()))
                pool = IPAMPool(subnet=subnet, gateway=gateway)
                try:
                    engine.create_network(
                        name, driver="bridge", ipam=IPAMConfig(pool_configs=[pool]), labels=dict(labels)
                    )
                except APIError as error:
                    raise self._no_network(name, subnet, error) from error
            elif subnet not in subnets(existing):
                raise DeployFailed(
                    f"the network {name} exists with {', '.join(subnets(existing))} instead of {subnet}; "
                    f"remove it (docker network rm {name}) and deploy again",
                    code="network-overlap",
                )

    def create(self, spec: SlotSpec) -> str:
        """Create (not start) the slot's container under its exact name and return its id.

        A container of that name from this very deployment is adopted, a stopped one of this instance set aside, any
        other is `foreign-container`. Raises DeployFailed, also `image-missing` and `create-refused`.
        """
        name = names.container(spec.service, spec.instance, spec.slot)
        self._volumes(spec)
        fail("docker.before-create")
        try:
            created = self._create(name, spec)
        except Unavailable:  # the answer may be lost although the work was done
            found = self.inspect(name)
            if found is None or not _same(found, spec, names.LABEL_DEPLOYMENT):
                raise
            created = found.id
        fail("docker.after-create")
        return created

    def start(self, container_id: str) -> None:
        """Start a container, which stays down when it ends; raises DeployFailed `start-failed` or `address-in-use`."""
        from docker.errors import APIError

        fail("docker.before-start")
        with self._engine() as engine:
            try:
                engine.start(container_id)
            except APIError as error:
                raise self._not_started(container_id, error) from error
        fail("docker.after-start")

    def persist(self, container_id: str) -> None:
        """Give a container its restart policy; raises DeployFailed `engine-refused` when it is gone."""
        with self._engine() as engine:
            labels = engine.inspect_container(container_id)["Config"]["Labels"] or {}
            wanted = labels.get(names.LABEL_RESTART, "unless-stopped")
            engine.update_container(container_id, restart_policy=_policy(wanted))

    def inspect(self, name: str) -> ContainerFacts | None:
        """Return the facts of the container with exactly this name or id, running or not."""
        with self._engine() as engine:
            found = _unless_missing(lambda: engine.inspect_container(name))
        if found is None or name not in (found["Name"].removeprefix("/"), found["Id"]):
            return None
        return facts(found)

    def at(self, network: str, address: str) -> ContainerFacts | None:
        """Return the running container that has an address in a network, whoever made it, or None."""
        holders = ((self._network(network) or {}).get("Containers") or {}).items()
        held = (key for key, endpoint in holders if endpoint["IPv4Address"].split("/")[0] == address)
        found = next(held, None)
        return self.inspect(found) if found else None

    def tail(self, container_id: str, lines: int) -> str:
        """Return the last lines of the container's own output, at most 64 KiB; "" when it is gone."""
        kept = b""
        with self._engine() as engine:
            pieces = _unless_missing(lambda: engine.logs(container_id, stream=True, follow=False, tail=lines))
            for piece in pieces or ():
                kept = (kept + piece)[-_TAIL_BYTES:]
        return kept.decode(errors="replace")

    def stop(self, container_id: str, grace: float) -> None:
        """Set restart policy `no`, send SIGTERM, SIGKILL after `grace` seconds; it is left in place."""
        with self._engine() as engine:
            if _unless_missing(lambda: engine.update_container(container_id, restart_policy=_policy("no"))) is None:
                return
            _unless_missing(lambda: engine.stop(container_id, timeout=math.ceil(grace)))

    def remove(self, container_id: str) -> None:
        """Remove a container, running or not, and keep its volumes; gone already is fine."""
        from docker.errors import APIError

        with self._engine() as engine:
            try:
                _unless_missing(lambda: engine.remove_container(container_id, force=True))
            except APIError as error:
                if error.status_code != 409:  # 409: its removal is already under way
                    raise
            deadline = time.monotonic() + _REMOVAL_SECONDS
            while self.inspect(container_id) is not None:
                if time.monotonic() > deadline:
                    raise DeployFailed(f"the container {container_id[:12]} cannot be removed", code="remove-failed")
                time.sleep(0.02)

    def mine(self, labels: Mapping[str, str]) -> list[ContainerFacts]:
        """List containers, running or not, that carry all these labels exactly."""
        wanted = [f"{key}={value}" for key, value in labels.items()]
        with self._engine() as engine:
            ids = [found["Id"] for found in engine.containers(all=True, filters={"label": wanted})]
        return [found for found in map(self.inspect, ids) if found is not None]

    def forget(self, service: str, instance: str) -> None:
        """Remove the slot network and the volumes of an instance that has no containers; gone already is fine."""
        labels = [f"{names.LABEL_SERVICE}={service}", f"{names.LABEL_INSTANCE}={instance}"]
        network = names.network(service, instance)
        with self._engine() as engine:
            if self._network(network) is not None:
                _unless_missing(lambda: engine.remove_network(network))
            for volume in engine.volumes(filters={"label": labels})["Volumes"] or ():
                _unless_missing(partial(engine.remove_volume, volume["Name"]))

    def _volumes(self, spec: SlotSpec) -> None:
        with self._engine() as engine:
            for volume in spec.container.volumes:
                name = names.volume(spec.service, spec.instance, volume.name)
                labels = {names.LABEL_SERVICE: spec.service, names.LABEL_INSTANCE: spec.instance}
                engine.create_volume(name, labels=labels)  # an existing one is left as it is

    def _create(self, name: str, spec: SlotSpec) -> str:
        from docker.errors import APIError

        with self._engine() as engine:
            wanted = settings(engine, spec)
            for _ in range(2):
                try:
                    created = engine.create_container_from_config(wanted, name)  # type: ignore[no-untyped-call]  # ditto
                    return str(created["Id"])
                except APIError as error:
                    holder = self.inspect(name) if error.status_code == 409 else None
                    if holder is None or not _same(holder, spec, names.LABEL_SERVICE, names.LABEL_INSTANCE):
                        raise self._not_created(name, spec, error) from error
                    if _same(holder, spec, names.LABEL_DEPLOYMENT):
                        return holder.id
                    engine.rename(holder.id, f"{name}-aside-{holder.id[:12]}")
        raise DeployFailed(f"the name {name} does not become free", code="name-conflict")

    def _not_created(self, name: str, spec: SlotSpec, error: APIError) -> DeployFailed:
        if error.status_code == 409 and self.inspect(name) is not None:
            return DeployFailed(
                f"a container named {name} exists that does not belong to this service; remove or rename it",
                code="foreign-container",
            )
        if self.image(spec.image_id) is None:
            return DeployFailed(f"the image {spec.image_id} is not on this engine", code="image-missing")
        return DeployFailed(f"the engine refuses to create {name}: {_words(error)}", code="create-refused")

    def _not_started(self, container_id: str, error: APIError) -> DeployFailed:
        """Say why; an address that somebody else has is looked for, because the engine's words for it are odd."""
        with self._engine() as engine:
            attributes = engine.inspect_container(container_id)
        name = attributes["Name"].removeprefix("/")
        for network, endpoint in attributes["NetworkSettings"]["Networks"].items():
            address = (endpoint.get("IPAMConfig") or {}).get("IPv4Address")
            for other in ((self._network(network) or {}).get("Containers") or {}).values():
                if other["Name"] != name and other["IPv4Address"].split("/")[0] == address:
                    return DeployFailed(
                        f"{name} cannot have its address {address}: the container {other['Name']} has it",
                        code="address-in-use",
                    )
        return DeployFailed(f"{name} does not start: {_words(error)}", code="start-failed")

    def _network(self, name: str) -> dict[str, Any] | None:
        with self._engine() as engine:
            found: dict[str, Any] | None = _unless_missing(lambda: engine.inspect_network(name))
        return found if found is not None and found["Name"] == name else None

    def _no_network(self, name: str, subnet: str, error: APIError) -> DeployFailed:
        wanted = ipaddress.ip_network(subnet)
        with self._engine() as engine:
            for other in engine.networks():
                if any(wanted.overlaps(ipaddress.ip_network(taken)) for taken in subnets(other) if "." in taken):
                    return DeployFailed(
                        f"{subnet} for {name} overlaps with the engine's network {other['Name']}; "
                        "remove that one, or stop the agent, take this service out of its networks.json and choose "
                        "another pool (networks: in agent.yml)",
                        code="network-overlap",
                    )
        return DeployFailed(
            f"the engine refuses the network {name} with {subnet}: {_words(error)}", code="network-failed"
        )

    def close(self) -> None:
        """Give the connections back; the next call makes new ones."""
        with self._making:
            if self._client is not None:
                self._client.close()
                self._client = None

    @contextmanager
    def _engine(self) -> Iterator[APIClient]:
        """Give the client; what the caller does not catch becomes Unavailable or `engine-refused`."""
        from docker.errors import APIError, DockerException
        from requests.exceptions import RequestException

        try:
            yield self._connection()
        except APIError as error:
            raise DeployFailed(f"the engine refused: {_words(error)}", code="engine-refused") from error
        except (RequestException, DockerException, OSError) as error:
            raise Unavailable(
                f"the Docker engine at {self._base_url} does not answer ({type(error).__name__}); is it running?",
                code="engine-unreachable",
            ) from error

    def _connection(self) -> APIClient:
        """Return the client, made when the engine first answers: making one asks for the engine's version."""
        with self._making:
            if self._client is None:
                from docker import APIClient

                _knock(self._base_url)
                self._client = APIClient(base_url=self._base_url, timeout=self._timeout)  # type: ignore[arg-type]  # floats work
            return self._client


def _knock(base_url: str) -> None:
    """Raise OSError when nobody listens on a unix socket; the SDK would leave its own failed socket open."""
    if base_url.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(base_url.removeprefix("unix://"))


def _same(found: ContainerFacts, spec: SlotSpec, *labels: str) -> bool:
    return all(label in spec.labels and found.labels.get(label) == spec.labels[label] for label in labels)


def _policy(name: str) -> Any:
    return {"Name": name}


def _unless_missing(act: Callable[[], Any]) -> Any:
    from docker.errors import NotFound

    try:
        done = act()
    except NotFound:
        return None
    return True if done is None else done


def _unless_refused(act: Callable[[], Any]) -> bool:
    """Do something that may be refused because somebody still uses the thing; say whether it was done."""
    from docker.errors import APIError

    try:
        act()
    except APIError as error:
        if error.status_code not in (404, 409):
            raise
        return False
    return True


def _words(error: APIError) -> str:
    return str(error.explanation or error).strip()
