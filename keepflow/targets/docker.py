"""A Docker engine as the place where containers serve.

The engine's error texts are shown to people and never decided upon: what to do next follows from status codes and from
looking at the engine again. Only what `SlotSpec` says reaches a container; there is no way to hand options through.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from keepflow.core import names
from keepflow.errors import DeployFailed, Unavailable
from keepflow.ports import ContainerFacts, EngineFacts, RegistryLogin, SlotSpec
from keepflow.targets._containers import facts, settings, subnets
from keepflow.targets._images import Images
from keepflow.targets._line import unless_missing, words
from keepflow.tools.failpoints import fail

if TYPE_CHECKING:
    from docker.errors import APIError

_TAIL_BYTES = 64 * 1024
_REMOVAL_SECONDS = 30.0


class Docker(Images):
    """Fits `ports.Target`; its methods may be called from every thread. `timeout` is for one answer, in seconds."""

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
            found = unless_missing(lambda: engine.inspect_container(name))
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
            pieces = unless_missing(lambda: engine.logs(container_id, stream=True, follow=False, tail=lines))
            for piece in pieces or ():
                kept = (kept + piece)[-_TAIL_BYTES:]
        return kept.decode(errors="replace")

    def stop(self, container_id: str, grace: float) -> None:
        """Set restart policy `no`, send SIGTERM, SIGKILL after `grace` seconds; it is left in place."""
        with self._engine() as engine:
            if unless_missing(lambda: engine.update_container(container_id, restart_policy=_policy("no"))) is None:
                return
            unless_missing(lambda: engine.stop(container_id, timeout=math.ceil(grace)))

    def remove(self, container_id: str) -> None:
        """Remove a container, running or not, and keep its volumes; gone already is fine."""
        from docker.errors import APIError

        with self._engine() as engine:
            try:
                unless_missing(lambda: engine.remove_container(container_id, force=True))
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
                unless_missing(lambda: engine.remove_network(network))
            for volume in engine.volumes(filters={"label": labels})["Volumes"] or ():
                unless_missing(partial(engine.remove_volume, volume["Name"]))

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
        return DeployFailed(f"the engine refuses to create {name}: {words(error)}", code="create-refused")

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
        return DeployFailed(f"{name} does not start: {words(error)}", code="start-failed")

    def _network(self, name: str) -> dict[str, Any] | None:
        with self._engine() as engine:
            found: dict[str, Any] | None = unless_missing(lambda: engine.inspect_network(name))
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
            f"the engine refuses the network {name} with {subnet}: {words(error)}", code="network-failed"
        )


def _same(found: ContainerFacts, spec: SlotSpec, *labels: str) -> bool:
    return all(label in spec.labels and found.labels.get(label) == spec.labels[label] for label in labels)


def _policy(name: str) -> Any:
    return {"Name": name}
