"""Between keepflow's words and the engine's: what a container is created from, and what is read back of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keepflow.core import names
from keepflow.ports import ContainerFacts, SlotSpec

if TYPE_CHECKING:
    from docker import APIClient

SECRETS = "/run/secrets"  #: where a container finds the secrets of its environment


def settings(engine: APIClient, spec: SlotSpec) -> Any:
    """Return the whole configuration of a container: exactly these keys, whatever a release asks for."""
    from docker.types import Mount, NetworkingConfig

    network = names.network(spec.service, spec.instance)
    mounts = [
        Mount(target=volume.at, source=names.volume(spec.service, spec.instance, volume.name), type="volume")
        for volume in spec.container.volumes
    ]
    if spec.secrets:  # a mount, so that no value is in what `docker inspect` shows
        mounts.append(Mount(target=SECRETS, source=spec.secrets, type="bind", read_only=True))
    host = engine.create_host_config(init=True, restart_policy={"Name": "no"}, mounts=mounts, network_mode=network)
    endpoint = engine.create_endpoint_config(ipv4_address=spec.address)
    return engine.create_container_config(
        image=spec.image_id,
        command=[] if spec.command else list(spec.container.args),  # empty: what the image says
        entrypoint=list(spec.command) or None,  # with one, the engine leaves the image's command out
        environment=[f"{key}={value}" for key, value in spec.env.items()],
        labels={**spec.labels, names.LABEL_RESTART: spec.restart},
        host_config=host,
        networking_config=NetworkingConfig({network: endpoint}),  # type: ignore[arg-type]  # the stub takes one endpoint
    )


def facts(found: dict[str, Any]) -> ContainerFacts:
    """Read the facts of an inspected container; one that restarts or is paused does not run."""
    state = found["State"]
    running = bool(state["Running"]) and not state["Restarting"] and not state["Paused"]
    addresses = [
        endpoint.get("IPAddress") or (endpoint.get("IPAMConfig") or {}).get("IPv4Address")
        for endpoint in found["NetworkSettings"]["Networks"].values()
    ]
    return ContainerFacts(
        id=found["Id"],
        name=found["Name"].removeprefix("/"),
        image_id=found["Image"],
        running=running,
        restarts=int(found["RestartCount"]),
        exit_code=None if running else int(state["ExitCode"]),
        oom_killed=bool(state["OOMKilled"]),
        started_at=state["StartedAt"],
        address=next((address for address in addresses if address), None),
        labels=found["Config"]["Labels"] or {},
        pid=int(state["Pid"]),
    )


def subnets(network: Mapping[str, Any]) -> list[str]:
    """List the subnets of an inspected network."""
    return [pool["Subnet"] for pool in network["IPAM"]["Config"] or () if "Subnet" in pool]
