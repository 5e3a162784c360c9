"""A whole master without its server: real database, real git, real files; agents are played by the test."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keepflow.core.events import Event, EventKind, Parsed
from keepflow.core.states import State
from keepflow.crypto import keys
from keepflow.crypto.vault import Vault
from keepflow.engine import deciding, enrol, intake, reports, sending
from keepflow.engine.context import Master
from keepflow.engine.keyring import KeyRing
from keepflow.engine.logs import Logs
from keepflow.engine.mirrors import Mirrors
from keepflow.engine.wakes import Wakes
from keepflow.ports import discover
from keepflow.store import agents, deliveries, environments, jobs, placements, projects, runs
from keepflow.store.database import Database
from keepflow.store.deliveries import Delivery
from keepflow.store.projects import Project
from keepflow.store.runs import Run
from keepflow.store.writer import Writer
from keepflow.wire import messages
from tests.tools import repositories

SCRIPT = """
version: 1
flows:
  dev:
    on: {push: dev}
    steps: [{run: make}]
"""


def open_master(home: Path, url: str | None = None) -> Master:
    """Build a master on a home; it is not started."""
    home.mkdir(parents=True, exist_ok=True)
    database = Database(url or f"sqlite:///{home}/keepflow.db")
    database.migrate()
    vault, wakes = Vault.open(home / "master.key", create=True), Wakes()
    key_file = home / "order.key"
    if not key_file.exists():
        keys.generate().save(key_file)
    return Master(
        home=home,
        database=database,
        writer=Writer(database),
        vault=vault,
        keys=KeyRing.open(home, database),
        wakes=wakes,
        mirrors=Mirrors(home, vault),
        logs=Logs(home, database, vault, wakes),
        kinds=discover("keepflow.steps"),
        forges=discover("keepflow.forges"),
        notifiers=discover("keepflow.notifiers"),
        url=lambda: "http://127.0.0.1:8080",
    )


@dataclass
class PlayedAgent:
    """An agent as the master sees it; the test says what it reports."""

    world: World
    id: int
    name: str
    key: keys.PrivateKey
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    def report(self, body: Any) -> None:
        """Report once, under the next number."""
        self.again(messages.Report(number=next(self.numbers), body=body))

    def again(self, report: messages.Report) -> None:
        """Send a report that may have been sent before."""
        self.world.call(lambda tx: reports.take(tx, self.world.master, self.id, [report], self.world.tick()))

    def orders(self) -> list[Any]:
        """Take what the master has for it, as its disk would."""
        with self.world.read() as conn:
            sends = sending.waiting(conn, self.world.master, self.id)
        self.world.call(lambda tx: sending.received(tx, self.id, [send.id for send in sends], self.world.tick()))
        return [send.body for send in sends]

    def connect(self, running: tuple[int, ...] = (), **facts: Any) -> None:
        """Begin a session."""
        said = {"capabilities": ("run",), "slots": 1, "step_kinds": ("run", "build", "push"), **facts}
        hello = messages.Hello(
            key_id=self.key.public.key_id, signature="", nonce="", version="1", running=running, **said
        )
        self.world.call(lambda tx: enrol.connected(tx, self.world.master, self.id, hello, self.world.tick()))

    def leave(self) -> None:
        """End the session."""
        self.world.call(
            lambda tx: enrol.disconnected(tx, self.world.master, self.id, "the connection broke", self.world.tick())
        )

    def finish(self, order: messages.RunJob, state: str = "succeeded", **more: Any) -> None:
        """Report the start and the end of a job."""
        self.report(messages.JobStarted(fence=order.fence, at=1))
        self.report(messages.JobFinished(fence=order.fence, at=2, state=state, **more))


class World:
    """One master, its projects, and a clock that the test turns."""

    def __init__(self, home: Path, url: str | None = None) -> None:
        self.home = home
        self.master = open_master(home / "home", url)
        self.master.writer.start()
        self.master.logs.start()
        self.now = 1_000_000_000
        self._deliveries = itertools.count(1)

    def close(self) -> None:
        """Stop everything."""
        self.master.logs.close()
        self.master.writer.close()
        self.master.database.dispose()

    def tick(self, microseconds: int = 1000) -> int:
        """Let time pass and return what it is then."""
        self.now += microseconds
        return self.now

    def call(self, work: Any) -> Any:
        """Run a closure in the writer."""
        return self.master.writer.call(work)

    def read(self) -> Any:
        """Open a read-only connection."""
        return self.master.database.read()

    # --- making things ---

    def project(self, name: str = "keepwork", **columns: Any) -> tuple[Project, Path]:
        """Add a project with an empty bare repository."""
        repository = repositories.bare(self.home / f"{name}.git")
        values = {"images": [name], **columns}
        self.call(lambda tx: projects.add(tx.conn, self.tick(), name, str(repository), "github", **values))
        return self.find_project(name), repository

    def find_project(self, name: str) -> Project:
        """Return a project by name."""
        with self.read() as conn:
            found = projects.by_name(conn, name)
        assert found is not None
        return found

    def environment(
        self, project: Project, name: str, branches: list[str], hosts: tuple[str, ...] = ("local",), **more: Any
    ) -> None:
        """Add an environment."""
        values = {"position": 0, "service": f"{project.name}-{name}", "branches": branches, **more}

        def put(tx: Any) -> None:
            environment_id = environments.put(tx.conn, project.id, name, self.tick(), values)
            placements.put(tx.conn, environment_id, hosts, self.now)

        self.call(put)

    def agent(self, name: str = "local", **facts: Any) -> PlayedAgent:
        """Let an agent join and connect."""
        key = keys.generate()
        agent_id = self.call(lambda tx: agents.enrol(tx.conn, name, key.public.text, key.public.key_id, self.tick()))
        made = PlayedAgent(self, agent_id, name, key)
        made.connect(**facts)
        return made

    # --- pushing ---

    def deliver(self, project: Project, event: Event, delivery: str | None = None) -> int:
        """Store a delivery as the gateway does and return its row id."""
        name = delivery or f"delivery-{next(self._deliveries)}"
        recorded = self.call(
            lambda tx: intake.record(
                tx, self.master, project, name, "github", "push", {}, b"{}", Parsed(event), self.tick()
            )
        )
        return int(recorded.id)

    def push(
        self,
        project: Project,
        repository: Path,
        files: dict[str, Any] | None = None,
        branch: str = "dev",
        message: str = "change",
    ) -> str:
        """Commit files to a branch of the repository; nobody is told."""
        return repositories.commit(repository, files or {"file": str(next(self._deliveries))}, message, branch)

    def pushed(self, sha: str, branch: str = "dev", message: str = "change", **more: Any) -> Event:
        """Return the event of a push."""
        return Event(EventKind.PUSH, f"refs/heads/{branch}", sha, message=message, actor="ann", **more)

    def handle(self, delivery_id: int) -> Delivery:
        """Handle a delivery now and return it."""
        stuck = deciding.handle(self.master, [delivery_id], self.tick())
        if stuck is not None:
            raise stuck.error
        return self.delivery(delivery_id)

    def send(self, project: Project, event: Event) -> Delivery:
        """Deliver and handle."""
        return self.handle(self.deliver(project, event))

    # --- looking ---

    def delivery(self, delivery_id: int) -> Delivery:
        """Return a delivery."""
        with self.read() as conn:
            found = deliveries.by_id(conn, delivery_id)
        assert found is not None
        return found

    def runs(self) -> list[Run]:
        """List all runs, oldest first."""
        with self.read() as conn:
            return list(reversed(runs.page(conn, limit=100_000)))

    def run(self, number: int = 1) -> Run:
        """Return a run of the first project by its number."""
        return next(run for run in self.runs() if run.number == number)

    def jobs(self, number: int = 1) -> dict[str, jobs.Job]:
        """Return the jobs of a run by key."""
        with self.read() as conn:
            return {job.key: job for job in jobs.of_run(conn, self.run(number).id)}

    def states(self) -> list[State]:
        """List the states of all runs, oldest first."""
        return [run.state for run in self.runs()]
