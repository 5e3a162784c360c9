"""An engine in memory whose containers are real HTTP servers on loopback addresses, and a reporter that remembers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from keepflow.agent.deployment import Deployment, Outcome
from keepflow.core import names
from keepflow.core.states import Phase
from keepflow.errors import DeployFailed, Unavailable
from keepflow.ports import ContainerFacts, ImageFacts, RegistryLogin, SlotSpec


class App(ThreadingHTTPServer):
    """What runs in a container: answers its identity, or 500 when it is `sick`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: str, port: int, text: str, *, sick: bool) -> None:
        self.text = text.encode()
        self.status = 500 if sick else 200
        super().__init__((address, port), _Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True).start()

    def end(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: App

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.text)))
        self.end_headers()
        self.wfile.write(self.server.text)

    def log_message(self, *_: object) -> None:
        pass


@dataclass(slots=True)
class _Container:
    spec: SlotSpec
    facts: ContainerFacts
    app: App | None = None
    policy: str = "no"


@dataclass(slots=True)
class FakeTarget:
    """Fits `ports.Target`. `calls` is what it was asked to change; `MODE` in a container's env says what goes wrong."""

    images: dict[str, ImageFacts] = field(default_factory=dict)  #: by id and by repo@digest
    remote: dict[str, ImageFacts] = field(default_factory=dict)  #: what a pull finds, by repo@digest
    tags: dict[str, str] = field(default_factory=dict)
    containers: dict[str, _Container] = field(default_factory=dict)  #: by name
    networks: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    down: bool = False
    words: str = ""  #: what containers say
    ends: int | None = 0  #: exit code of what runs a command of its own; None = it goes on
    room: int | None = None  #: bytes that are free
    _made: int = 0

    def add_image(self, image_id: str) -> str:
        """Put an image on the disk and return its id."""
        self.images[image_id] = ImageFacts(image_id)
        return image_id

    def ping(self) -> None:
        """Answer, unless `down`."""
        if self.down:
            raise Unavailable("the engine does not answer", code="engine-unreachable")

    def free(self) -> int | None:
        """Look at the disk: every kept tag takes 100 bytes of it."""
        return None if self.room is None else self.room - 100 * len(self.tags)

    def image(self, reference: str) -> ImageFacts | None:
        """Look on the disk."""
        self.ping()
        return self.images.get(self.tags.get(reference, reference))

    def pull(self, repository: str, digest: str, login: RegistryLogin | None, say: Callable[[str], None]) -> ImageFacts:
        """Fetch from `remote`."""
        self.calls.append(("pull", digest))
        found = self.remote.get(f"{repository}@{digest}")
        if found is None:
            raise DeployFailed(f"no {digest} in the registry", code="image-missing")
        say("layer 1: pull complete")
        self.images[f"{repository}@{digest}"] = self.images[found.image_id] = found
        return found

    def keep(self, image_id: str, tag: str) -> None:
        """Remember a tag."""
        self.tags[tag] = image_id

    def kept(self, repository: str) -> list[tuple[str, str]]:
        """List tags."""
        return sorted((tag, image) for tag, image in self.tags.items() if tag.startswith(f"{repository}:"))

    def drop(self, reference: str) -> None:
        """Forget a tag."""
        self.tags.pop(reference, None)

    def network(self, name: str, subnet: str, labels: Mapping[str, str]) -> None:
        """Remember a network."""
        if self.networks.setdefault(name, subnet) != subnet:
            raise DeployFailed("overlap", code="network-overlap")

    def create(self, spec: SlotSpec) -> str:
        """Make a container."""
        name = names.container(spec.service, spec.instance, spec.slot)
        held = self.containers.get(name)
        if held is not None:
            if held.facts.labels[names.LABEL_DEPLOYMENT] == spec.labels[names.LABEL_DEPLOYMENT]:
                return held.facts.id
            held.facts = replace(held.facts, name=f"{name}-aside")
            self.containers[f"{name}-aside"] = self.containers.pop(name)
        self._made += 1
        self.calls.append(("create", name))
        facts = ContainerFacts(
            f"c{self._made}", name, spec.image_id, False, 0, None, False, "", spec.address, dict(spec.labels)
        )
        self.containers[name] = _Container(spec, facts)
        return facts.id

    def start(self, container_id: str) -> None:
        """Start a container: its server listens, unless its mode is another."""
        found = self._find(container_id)
        if found is None:
            raise DeployFailed("gone", code="start-failed")
        self.calls.append(("start", found.facts.name))
        mode = found.spec.env.get("MODE", "ok")
        if mode == "no-start":
            raise DeployFailed("exec format error", code="start-failed")
        if found.spec.command:
            found.facts = replace(found.facts, running=self.ends is None, exit_code=self.ends)
            return
        if mode == "exit":
            found.facts = replace(found.facts, exit_code=7)
            return
        text = found.spec.labels.get(names.LABEL_IDENTITY, "")
        found.app = App(found.spec.address, found.spec.container.port, text, sick=mode == "sick")
        found.facts = replace(found.facts, running=True, exit_code=None, started_at=f"start {len(self.calls)}")

    def persist(self, container_id: str) -> None:
        """Remember the policy; an engine takes none for a container that just ended."""
        found = self._find(container_id)
        if found is None or not found.facts.running:
            raise DeployFailed("the engine refused: container not running", code="engine-refused")
        found.policy = found.spec.restart

    def inspect(self, name: str) -> ContainerFacts | None:
        """Look at a container by name or id."""
        self.ping()
        found = self.containers.get(name) or self._find(name)
        return found.facts if found else None

    def at(self, network: str, address: str) -> ContainerFacts | None:
        """Look who has an address."""
        self.ping()
        running = (one.facts for one in self.containers.values() if one.facts.running)
        return next((facts for facts in running if facts.address == address), None)

    def tail(self, container_id: str, lines: int) -> str:
        """Return what it said."""
        return self.words or f"last words of {container_id}"

    def stop(self, container_id: str, grace: float) -> None:
        """Stop its server."""
        self.ping()
        found = self._find(container_id)
        if found is None:
            return
        self.calls.append(("stop", found.facts.name))
        found.policy = "no"
        self._end(found, 143)

    def remove(self, container_id: str) -> None:
        """Take a container away."""
        found = self._find(container_id)
        if found is not None:
            self.calls.append(("remove", found.facts.name))
            self._end(found, 137)
            del self.containers[found.facts.name]

    def mine(self, labels: Mapping[str, str]) -> list[ContainerFacts]:
        """List containers by labels."""
        return [one.facts for one in self.containers.values() if labels.items() <= one.facts.labels.items()]

    def forget(self, service: str, instance: str) -> None:
        """Forget a network."""
        self.networks.pop(names.network(service, instance), None)

    def crash(self, name: str, code: int = 139) -> None:
        """Let a container die by itself, or by a signal whose exit code is given."""
        self._end(self.containers[name], code)

    def close(self) -> None:
        """End every server."""
        for found in list(self.containers.values()):
            self._end(found, 137)

    def _find(self, container_id: str) -> _Container | None:
        return next((one for one in self.containers.values() if one.facts.id == container_id), None)

    def _end(self, found: _Container, code: int) -> None:
        if found.app is not None:
            found.app.end()
            found.app = None
        if found.facts.running:
            found.facts = replace(found.facts, running=False, exit_code=code)


@dataclass(slots=True)
class Told:
    """A reporter that remembers."""

    phases: list[tuple[str, Phase, str]] = field(default_factory=list)
    outcomes: list[tuple[str, Outcome]] = field(default_factory=list)

    def phase(self, deployment: Deployment, phase: Phase, detail: str) -> None:
        """Remember a phase."""
        self.phases.append((deployment.id, phase, detail))

    def finished(self, deployment: Deployment, outcome: Outcome) -> None:
        """Remember an outcome."""
        self.outcomes.append((deployment.id, outcome))

    def names(self, deployment_id: str) -> list[str]:
        """Return the phases of one deployment, each once, in order."""
        return list(dict.fromkeys(phase.value for known, phase, _ in self.phases if known == deployment_id))
