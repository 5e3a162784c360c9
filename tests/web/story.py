"""A believable history of a small team, told through the real engine: pushes, runs, logs, deployments, a promotion.

Agents are played: what they would report is reported for them. Repositories are real, so commits are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from keepflow.core.events import Event, EventKind, Parsed
from keepflow.core.flows import Container, JobKind, Plan, PlannedJob, Step
from keepflow.crypto import keys
from keepflow.crypto.vault import Vault
from keepflow.engine import apply, deploying, dispatch, enrol, reports, signin
from keepflow.engine import people as rules
from keepflow.engine import runs as engine_runs
from keepflow.engine.context import Master
from keepflow.engine.keyring import KeyRing
from keepflow.engine.logs import Logs
from keepflow.engine.mirrors import Mirrors
from keepflow.engine.wakes import Wakes
from keepflow.ports import discover
from keepflow.store import agents, deliveries, deployments, jobs, projects, runs
from keepflow.store.database import Database
from keepflow.store.jobs import Attempt
from keepflow.store.writer import Tx, Writer
from keepflow.tools.git import init_bare
from keepflow.wire import messages
from keepflow.wire.desired import Desired, DesiredEnvironment, DesiredProject, DesiredRegistry
from tests.tools import repositories

T = TypeVar("T")
SECOND = 1_000_000
HOUR = 3600 * SECOND
START = 1_772_000_000 * SECOND  #: 2026-02-25 06:13:20 UTC
REGISTRY = "registry.example.org:5000"
PASSWORD = "correct horse battery"


@contextmanager
def open_master(home: Path, url: str = "http://localhost") -> Iterator[Master]:
    """Run the store and the log thread of a master on a directory."""
    home.mkdir(parents=True, exist_ok=True)
    database = Database(f"sqlite:///{home}/keepflow.db")
    database.migrate()
    writer, wakes, vault = Writer(database), Wakes(), Vault.open(home / "master.key", create=True)
    logs = Logs(home, database, vault, wakes)
    if not (home / "order.key").exists():
        keys.generate().save(home / "order.key")
    writer.start()
    logs.start()
    try:
        yield Master(
            home=home,
            database=database,
            writer=writer,
            vault=vault,
            keys=KeyRing.open(home, database),
            wakes=wakes,
            mirrors=Mirrors(home, vault),
            logs=logs,
            kinds=discover("keepflow.steps"),
            forges=discover("keepflow.forges"),
            notifiers=discover("keepflow.notifiers"),
            url=lambda: url,
        )
    finally:
        logs.close()
        writer.close()
        database.dispose()


@dataclass
class Story:
    """Tells things that happen; `now` is the story's time and only moves forward."""

    master: Master
    now: int = START
    agent_ids: dict[str, int] = field(default_factory=dict)
    _reports: dict[str, int] = field(default_factory=dict)

    def wait(self, seconds: float) -> int:
        """Let time pass and return the new time."""
        self.now += int(seconds * SECOND)
        return self.now

    def write(self, work: Callable[[Tx], T]) -> T:
        """Commit something."""
        return self.master.writer.call(work)

    # --- the stage ---

    def set_up(self, *names: str) -> None:
        """Apply a server file with these projects, each with dev, test and production."""
        wanted = names or ("keepwork",)
        self.write(lambda tx: apply.apply(tx, self.master, _desired(wanted), "local-admin", self.now))
        for name in wanted:
            init_bare(self.master.mirrors.path(self.project(name)))

    def user(self, name: str, *, admin: bool = False, role: str | None = None, project: str = "keepwork") -> None:
        """Add a person who can sign in with PASSWORD."""

        def invite(tx: Tx) -> str:
            added = rules.add_user(tx, name, f"{name}@example.org", admin, "local-admin", self.now)
            if role is not None:
                place = projects.by_name(tx.conn, project)
                assert place is not None
                rules.set_role(tx, place.id, role, user=name, by="local-admin", now=self.now)
            return signin.make_password_link(tx, self.master, added, "local-admin", self.now)

        token = self.write(invite).rpartition("/")[2]
        signin.SignIn(self.master).use_setup_link(token, name, PASSWORD, "127.0.0.1", self.now)

    def agent(self, name: str, *capabilities: str, warnings: Sequence[str] = ()) -> None:
        """Let an agent join and connect."""
        key = keys.generate().public
        added = self.write(lambda tx: agents.enrol(tx.conn, name, key.text, key.key_id, self.now))
        self.agent_ids[name] = added
        self.connect(name, *capabilities, warnings=warnings)

    def connect(self, name: str, *capabilities: str, warnings: Sequence[str] = ()) -> None:
        """Let an agent begin a session."""
        added = self.agent_ids[name]
        with self.master.database.read() as conn:
            key_id = agents.by_id(conn, added).key_id
        hello = messages.Hello(
            key_id=key_id,
            signature="",
            nonce="",
            version="0.1.0",
            capabilities=capabilities,
            labels=("linux", "docker"),
            slots=2,
            step_kinds=tuple(self.master.kinds),
            warnings=tuple(warnings),
        )
        self.write(lambda tx: enrol.connected(tx, self.master, added, hello, self.now))

    def lose_agent(self, name: str) -> None:
        """Cut an agent's link."""
        self.write(lambda tx: enrol.disconnected(tx, self.master, self.agent_ids[name], "the link was cut", self.now))

    def project(self, name: str = "keepwork") -> projects.Project:
        """Return a project."""
        with self.master.database.read() as conn:
            found = projects.by_name(conn, name)
        assert found is not None
        return found

    # --- what happens ---

    def commit(self, message: str, author: str = "Ann", *, project: str = "keepwork", branch: str = "master") -> str:
        """Put a commit into the mirror, as a fetch would have."""
        mirror = self.master.mirrors.path(self.project(project))
        return repositories.commit(mirror, {"file": f"{message}{self.now}"}, message, branch, author=author)

    def push(
        self,
        flow: str,
        sha: str,
        message: str,
        *,
        branch: str = "master",
        actor: str = "ann",
        project: str = "keepwork",
    ) -> int:
        """A forge calls the hook, the flow is started; return the run's number."""
        place = self.project(project)
        event = Event(EventKind.PUSH, f"refs/heads/{branch}", sha, message=message, actor=actor)
        event_json = event.to_json()

        def start(tx: Tx) -> int:
            new = deliveries.NewDelivery(
                place.id, f"{sha[:8]}-{self.now}", "github", "push", {}, b"{}", Parsed(event=event), None, self.now
            )
            delivery = deliveries.add(tx.conn, new)
            assert delivery is not None
            assert event_json
            why = f"push to {branch}"
            run_id = engine_runs.add(
                tx,
                self.master,
                place,
                event,
                plan(flow),
                trust="protected",
                why=why,
                now=self.now,
                delivery_id=delivery,
            )
            number = runs.by_id(tx.conn, run_id).number
            decision = {
                "sentence": f"flow {flow} started",
                "runs": [{"flow": flow, "run": number, "why": why}],
                "not": {other: f"on.push does not name {branch}" for other in ("dev", "test") if other != flow},
            }
            deliveries.decide(tx.conn, delivery, decision, self.now)
            dispatch.advance(tx, self.master, run_id, self.now)
            dispatch.assign(tx, self.master, self.now)
            return number

        return self.write(start)

    def attempt(self, number: int, project: str = "keepwork", kind: JobKind = JobKind.SCRIPT) -> tuple[str, Attempt]:
        """Return the newest attempt of a run's job of this kind, with the agent that has it."""
        with self.master.database.read() as conn:
            run = runs.by_number(conn, self.project(project).id, number)
            assert run is not None
            job = next(job for job in jobs.of_run(conn, run.id) if job.kind == kind)
            found = jobs.attempts_of(conn, job.id)[-1]
            assert found.agent_id is not None
            return agents.by_id(conn, found.agent_id).name, found

    def report(self, agent: str, body: messages.ReportBody) -> None:
        """Let an agent report."""
        number = self._reports[agent] = self._reports.get(agent, 0) + 1
        message = messages.Report(number=number, body=body)
        self.write(lambda tx: reports.take(tx, self.master, self.agent_ids[agent], [message], self.now))

    def begin(self, number: int, project: str = "keepwork") -> Work:
        """Let the agent begin the script job of a run."""
        agent, attempt = self.attempt(number, project)
        self.wait(0.4)
        self.report(agent, messages.JobStarted(fence=attempt.fence, at=self.now))
        return Work(self, agent, attempt)

    def renew(self) -> None:
        """Let the clock offer what may go now."""

        def renew(tx: Tx) -> None:
            deploying.offer_waiting(tx, self.master, self.now)
            dispatch.assign(tx, self.master, self.now)

        self.write(renew)

    def deploy(
        self,
        number: int,
        outcome: str = "done",
        *,
        sentence: str = "",
        code: str = "unhealthy",
        project: str = "keepwork",
        until: str = "",
        host: str = "",
    ) -> None:
        """Let the agent carry out the deployment of a run (to this host), or (`until`) only up to a phase."""
        with self.master.database.read() as conn:
            run = runs.by_number(conn, self.project(project).id, number)
            assert run is not None
            found = next(one for one in deployments.of_run(conn, run.id) if host in ("", one.host))
            assert found.fence is not None
            assert found.agent_id is not None
            agent = agents.by_id(conn, found.agent_id).name
        facts = {"fence": found.fence, "deployment": found.id}
        self.report(agent, messages.DeployAnswer(**facts, at=self.wait(0.1), accepted=True))
        for phase in ("preflight", "pulling", "starting", "gating", "switching", "proving", "watching", "draining"):
            self.report(agent, messages.DeployPhase(**facts, at=self.wait(0.6), phase=phase))
            if phase == until:
                return
            if outcome == "failed" and phase == "gating":
                break
        probes = {"sent": 412, "failed": 0, "p99_ms": 3.1 if host in ("", "prod-1") else 9.5}
        receipt = {"probes": probes, "slot": "green", "maintenance": 0.0}
        tail = "" if outcome == "done" else "Error: cannot find module 'express'\n    at Module._resolveFilename\n"
        body = messages.DeployFinished(
            **facts,
            at=self.wait(1.2),
            outcome=outcome,
            code="" if outcome == "done" else code,
            sentence=sentence,
            serving=found.identity if outcome == "done" else found.identity_before,
            receipt=receipt if outcome == "done" else {},
            log_tail=tail,
        )
        self.report(agent, body)


@dataclass
class Work:
    """A script job an agent holds."""

    story: Story
    agent: str
    attempt: Attempt
    offset: int = 0
    index: int = 0

    def say(self, text: str | bytes) -> Work:
        """Write to the log and wait until it is safe."""
        data = text.encode() if isinstance(text, str) else text
        logs, agent_id = self.story.master.logs, self.story.agent_ids[self.agent]
        logs.append(self.attempt.fence, self.offset, data, agent_id=agent_id).result(10)
        self.offset += len(data)
        return self

    def step(self, name: str, text: str = "", exit_code: int = 0, seconds: float = 2.0) -> Work:
        """Run one step from its beginning to its end."""
        self.open_step(name)
        self.say(f"\x1b[1m$ {name}\x1b[0m\n{text}")
        self.story.wait(seconds)
        facts = {"fence": self.attempt.fence, "index": self.index - 1, "at": self.story.now}
        self.story.report(self.agent, messages.StepFinished(**facts, exit_code=exit_code, offset=self.offset))
        return self

    def open_step(self, name: str) -> Work:
        """Begin a step."""
        facts = {"fence": self.attempt.fence, "index": self.index, "at": self.story.now}
        self.story.report(self.agent, messages.StepStarted(**facts, name=name, offset=self.offset))
        self.index += 1
        return self

    def end(self, exit_code: int = 0, image: messages.BuiltImage | None = None) -> None:
        """End the job."""
        failed = exit_code != 0
        sentence = f"step {self.index} failed: exit code {exit_code}" if failed else ""
        body = messages.JobFinished(
            fence=self.attempt.fence,
            at=self.story.wait(0.1),
            state="failed" if failed else "succeeded",
            code="exit" if failed else "",
            sentence=sentence,
            exit_code=exit_code,
            images=(image,) if image else (),
            log_bytes=self.offset,
        )
        self.story.report(self.agent, body)


def plan(flow: str) -> Plan:
    """Return the plan of the flows `dev` and `test`: build, then deploy there; of `graph`, several jobs."""
    if flow == "graph":
        return _graph()
    steps = (
        Step("run", f"scripts/build-image.sh {flow}", {"run": f"scripts/build-image.sh {flow}"}),
        Step("run", f"scripts/push-image.sh {flow}", {"run": f"scripts/push-image.sh {flow}"}),
    )
    return Plan(
        flow,
        (
            PlannedJob("build", JobKind.SCRIPT, steps=steps if flow == "test" else steps[:1]),
            PlannedJob(f"deploy-{flow}", JobKind.DEPLOY, needs=("build",), target=flow),
        ),
        image="keepwork",
        container=Container(env={"TZ": "Asia/Shanghai", "RELEASE": flow}),
    )


def _graph() -> Plan:
    def job(key: str, *needs: str, **more: Any) -> PlannedJob:
        return PlannedJob(key, JobKind.SCRIPT, needs, (Step("run", f"make {key}", {"script": f"make {key}"}),), **more)

    jobs = (
        job("unit-3-11", stage="test"),
        job("unit-3-12", stage="test"),
        job("style", stage="test", allow_failure=True),
        job("package", "unit-3-11", "unit-3-12", "style", stage="build"),
        job("ship", "package", stage="ship"),
        job("mail", "unit-3-11", "unit-3-12", "package", "ship", when="failure", stage="tell"),
    )
    return Plan("graph", jobs)


def pushed(letter: str) -> messages.BuiltImage:
    """Return an image as the registry describes it; the letter makes its digest."""
    return messages.BuiltImage(
        origin="registry",
        reference=f"{REGISTRY}/keepwork:{letter}",
        repository=f"{REGISTRY}/keepwork",
        image_id="sha256:" + letter * 64,
        digest="sha256:" + (letter + "0") * 32,
    )


def built(letter: str) -> messages.BuiltImage:
    """Return an image that only the agent has."""
    image_id = "sha256:" + letter * 64
    return messages.BuiltImage(origin="local", reference="keepwork:dev", repository="keepwork", image_id=image_id)


def _desired(names: Sequence[str]) -> Desired:
    places: dict[str, DesiredEnvironment] = {}
    for name in names:
        places[f"{name}/dev"] = DesiredEnvironment(agents=("local",), service=f"{name}-dev", branches=("dev",))
        places[f"{name}/test"] = DesiredEnvironment(
            agents=("local",), service=f"{name}-test", branches=("master", "main"), overrides={"args": ["test"]}
        )
        places[f"{name}/production"] = DesiredEnvironment(
            agents=("prod-1",), service=name, promote_from="test", overrides={"args": ["prod"]}
        )
    return Desired(
        registries={"main": DesiredRegistry(address=REGISTRY)},
        groups={"testers": ("ann",), "release-managers": ("bo", "cy")},
        projects={
            name: DesiredProject(
                repo=f"https://github.com/example/{name}.git",
                forge="github",
                flow_file=".keepflow.yml",
                images=("keepwork",),
            )
            for name in names
        },
        environments=places,
    )


BUILD_LOG = (
    "Sending build context to Docker daemon  4.1MB\n"
    "Step 1/6 : FROM node:22\n ---> 1f0c3f2a9b7d\n"
    "Step 2/6 : WORKDIR /project\n ---> Using cache\n"
    "\x1b[33mwarning\x1b[0m: 2 packages are out of date\n"
    "Downloading  10%\rDownloading  55%\rDownloading 100%\n"
    "\x1b[32m✓\x1b[0m 184 modules bundled, \x1b[38;5;208m412 kB\x1b[0m → \x1b[1;36m96 kB\x1b[0m\n"
    "Successfully built 8c1d2e3f4a5b\n"
)


def tell(story: Story) -> None:
    """Tell the whole history: test serves something newer than production, one run failed, one is running."""
    story.set_up("keepwork", "shop")
    story.agent("local", "run", "deploy", warnings=("jobs on this machine may use Docker, so they are root on it",))
    story.agent("prod-1", "deploy")
    story.user("ann", role="tester")
    story.user("bo", role="release-manager")
    story.user("root", admin=True)
    first = story.commit("Serve the login page over HTTP/2")
    run_test(story, first, "Serve the login page over HTTP/2", "a")
    promote(story, "1")
    story.wait(3 * 24 * 3600)
    for message, author in (
        ("Keep drafts when the connection drops", "Bo"),
        ("Cap uploads at 20 MB and say so", "Cy"),
        ("修复登录页的时区显示", "Li Wei"),
    ):
        newest = story.commit(message, author)
    run_test(story, newest, "修复登录页的时区显示\n\nFixes #41", "b")
    story.wait(5400)
    dev = story.commit("Try the new editor", "Ann", branch="dev")
    number = story.push("dev", dev, "Try the new editor", branch="dev")
    story.begin(number).step("scripts/build-image.sh dev", BUILD_LOG, seconds=21).end(image=built("d"))
    story.deploy(number)
    story.wait(700)
    broken = story.commit("Speed up the search index", "Cy")
    number = story.push("test", broken, "Speed up the search index", actor="cy")
    work = story.begin(number).step("scripts/build-image.sh test", BUILD_LOG, seconds=24)
    work.step("scripts/push-image.sh test", "The push refers to repository\nlayer 3: \x1b[31mKilled\x1b[0m\n", 137, 41)
    work.end(137)
    story.wait(420)
    again = story.commit("Index in batches", "Cy", branch="dev")
    number = story.push("dev", again, "Index in batches", branch="dev", actor="cy")
    story.begin(number).open_step("scripts/build-image.sh dev").say(
        "\x1b[1m$ scripts/build-image.sh dev\x1b[0m\n" + BUILD_LOG
    )


def run_test(
    story: Story, sha: str, message: str, letter: str, outcome: str = "done", *, branch: str = "master"
) -> int:
    """Let a push to master be built, pushed to the registry and (`outcome` "" is not) deployed to test."""
    number = story.push("test", sha, message, branch=branch)
    work = story.begin(number).step("scripts/build-image.sh test", BUILD_LOG, seconds=24)
    work.step("scripts/push-image.sh test", f"digest: {pushed(letter).digest} size: 1784\n", seconds=4)
    work.end(image=pushed(letter))
    if outcome:
        story.deploy(number, outcome)
    return number


def promote(
    story: Story,
    source: str,
    by: str = "bo",
    outcome: str = "done",
    key: str | None = None,
    *,
    rollback: bool = False,
    break_glass: str | None = None,
) -> int:
    """Let somebody promote a run to production and the agent carry it out; return the promote's run number."""
    from keepflow.engine import guarding, promoting

    presser = guarding.Presser(by, True, frozenset({"release-managers"}))
    said = promoting.Said("tested by ann", rollback, break_glass, key=key)
    story.wait(1800)
    place = {"project": "keepwork", "to": "production", "source": source}
    seen = promoting.look(story.master, **place)
    deployment = story.write(
        lambda tx: promoting.promote(tx, story.master, **place, presser=presser, said=said, seen=seen, now=story.now)
    )
    with story.master.database.read() as conn:
        found = deployments.by_id(conn, deployment)
        assert found is not None
        number = runs.by_id(conn, jobs.by_id(conn, found.job_id).run_id).number
    if outcome:
        story.deploy(number, outcome)
    return number
