"""The slot networks of a host: one /28 per instance out of a pool, allotted once and remembered."""

from __future__ import annotations

import fcntl
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from keepflow.core import names
from keepflow.errors import DeployFailed, Refused
from keepflow.tools.files import write_atomic

_ROUTES = Path("/proc/net/route")


@dataclass(frozen=True, slots=True)
class SlotNetwork:
    """The network of one instance and the fixed addresses of its slots."""

    name: str
    subnet: str
    blue: str
    green: str

    def address(self, slot: str) -> str:
        """Return the address of a slot."""
        return self.blue if slot == names.SLOTS[0] else self.green

    @property
    def beside(self) -> str:
        """The address of what runs once beside the slots: the last one, which the engine gives to nobody else first."""
        return str(list(IPv4Network(self.subnet).hosts())[-1])


class Networks:
    """Who has which part of the pool; kept in one file, which several processes of a host may use."""

    def __init__(
        self, path: Path, pool: str | IPv4Network, routes: Callable[[], Sequence[IPv4Network]] | None = None
    ) -> None:
        self._path = path
        self._pool = IPv4Network(pool)
        self._routes = routes or host_routes

    def of(self, service: str, instance: str, most: int | None = None) -> SlotNetwork:
        """Return the network of an instance, allotting one on first use; `most` instances of a service get one.

        What was allotted stays, also when the pool in agent.yml changes. Raises DeployFailed `network-overlap` when
        every free part of the pool is routed elsewhere, `network-pool-full`, and `name-collision` when another
        instance already has the same names on this host; Refused `instances-full`.
        """
        key = f"{service}/{instance}"
        with self._locked():
            allotted = self._read()
            if key not in allotted:
                self._refuse_collision(service, instance, allotted)
                self._refuse_one_more(service, most, allotted)
                allotted[key] = str(self._free(allotted))
                write_atomic(self._path, json.dumps(allotted, indent=1, sort_keys=True).encode(), 0o600)
        return _slots(names.network(service, instance), allotted[key])

    def known(self, service: str, instance: str) -> SlotNetwork | None:
        """Return the network that an instance has, None when it has none."""
        subnet = self._read().get(f"{service}/{instance}")
        return _slots(names.network(service, instance), subnet) if subnet else None

    def release(self, service: str, instance: str) -> None:
        """Give the part of an instance that is gone back to the pool."""
        with self._locked():
            allotted = self._read()
            if allotted.pop(f"{service}/{instance}", None) is not None:
                write_atomic(self._path, json.dumps(allotted, indent=1, sort_keys=True).encode(), 0o600)

    def _free(self, allotted: dict[str, str]) -> IPv4Network:
        taken = [IPv4Network(subnet) for subnet in allotted.values()]
        routed = self._routes()
        free = [part for part in self._pool.subnets(new_prefix=28) if not any(part.overlaps(one) for one in taken)]
        if not free:
            raise DeployFailed(
                f"the pool {self._pool} has no /28 left; enlarge networks: in agent.yml", code="network-pool-full"
            )
        for part in free:
            if not any(part.overlaps(route) for route in routed):
                return part
        raise DeployFailed(
            f"the pool {self._pool} overlaps with what this host routes elsewhere "
            f"({', '.join(str(route) for route in routed if route.overlaps(self._pool))}); "
            "choose another one: networks: in agent.yml",
            code="network-overlap",
        )

    def _refuse_collision(self, service: str, instance: str, allotted: dict[str, str]) -> None:
        """a-b/c and a/b-c would share every name on this host."""
        for key in allotted:
            other = key.partition("/")[::2]
            if names.prefix(*other) == names.prefix(service, instance):
                raise DeployFailed(
                    f"{service}/{instance} and {key} would have the same names on this host; rename one of them",
                    code="name-collision",
                )

    def _refuse_one_more(self, service: str, most: int | None, allotted: dict[str, str]) -> None:
        there = sorted(key.partition("/")[2] for key in allotted if key.startswith(f"{service}/"))
        if most is not None and len(there) >= most:
            named = ", ".join(there[:5]) + ", …" * (len(there) > 5)
            raise Refused(
                f"{service} has {len(there)} instances on this host ({named}), and its agent.yml allows {most} "
                f"(instances: {most}); delete a branch, or raise that number",
                code="instances-full",
            )

    def _read(self) -> dict[str, str]:
        try:
            allotted: dict[str, str] = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        return allotted

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._path.with_name(f".{self._path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def host_routes() -> list[IPv4Network]:
    """Return every IPv4 network this host has a route to, the default route excepted."""
    return routes_of(_ROUTES.read_text(encoding="ascii"))


def routes_of(table: str) -> list[IPv4Network]:
    """Read the text of /proc/net/route."""
    rows = (line.split() for line in table.splitlines()[1:])
    found = ((_quad(row[1]), _quad(row[7])) for row in rows if len(row) > 7)
    return [IPv4Network((address, _prefix_length(mask))) for address, mask in found if mask]


def _quad(kernel_hex: str) -> int:
    return int(struct.unpack(">I", struct.pack("=I", int(kernel_hex, 16)))[0])


def _prefix_length(mask: int) -> int:
    return mask.bit_count()


def _slots(name: str, subnet: str) -> SlotNetwork:
    _gateway, blue, green, *_ = IPv4Network(subnet).hosts()
    return SlotNetwork(name, subnet, str(blue), str(green))
