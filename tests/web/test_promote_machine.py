"""Random pushes, tests, marks, promotes and rollbacks through the real engine: what may never happen, never does.

Production never moves to something older without the word rollback, and never to something that no tester passed, or
that one rejects, without breaking the glass.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from keepflow.core.gates import GateState
from keepflow.core.marks import Verdict
from keepflow.engine import gates as engine_gates
from keepflow.engine import marks, rolling_back
from keepflow.engine.guarding import Presser
from keepflow.engine.promoting import find_release
from keepflow.errors import Denied, NotFound, Refused, UsageError
from keepflow.store import breakglass, deployments, environments, jobs, people, runs
from keepflow.store import gates as stored_gates
from keepflow.store.deployments import Deployment
from keepflow.store.environments import Environment
from keepflow.store.releases import StoredRelease
from tests.web import story as stories
from tests.web.story import HOUR, Story, promote, pushed, run_test

LETTERS = "123456789abcdef"
REASON = "the shop takes no orders, and this mends it"
MANAGERS = frozenset({"release-managers"})
TESTERS = st.sampled_from(["ann", "bo", "dee"])  # dee is in no group of testers
OUTCOMES = st.sampled_from(["done"] * 6 + ["failed", "reverted"])
BRANCHES = st.sampled_from(["master", "master", "main"])
AGE = st.sampled_from([0, 0, 1, 2])  #: how many releases before the newest


@dataclass(frozen=True)
class Made:
    """A release as the machine knows it: where its commit lies, and the run that built it."""

    branch: str
    place: int  #: counts the commits of its branch
    run: int
    identity: str

    def is_older_than(self, other: Made) -> bool:
        """Say which of two is older: on one branch its place, between branches that share nothing the run."""
        if self.branch == other.branch:
            return self.place < other.place
        return self.run < other.run


class Promotes(RuleBasedStateMachine):
    """A project with test and a production that wants a tester's mark and another person's press."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        home = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.story = Story(self._stack.enter_context(stories.open_master(home / "home")))
        self.made: list[Made] = []
        self.said: dict[tuple[str, str], Verdict] = {}  # (identity, person) → what counts

    def teardown(self) -> None:
        self._stack.close()

    @initialize()
    def set_up(self) -> None:
        """Set the stage."""
        story = self.story
        story.set_up()
        story.agent("local", "run", "deploy")
        story.agent("prod-1", "deploy")
        project = story.project().id
        rules = {"verified_by": ["testers"], "approved_by": ["release-managers"], "rules": {"four_eyes": True}}
        story.write(lambda tx: environments.put(tx.conn, project, "production", story.now, rules))
        story.write(lambda tx: people.set_group(tx.conn, "testers", ["ann", "bo"], managed=True))

    # --- what people and machines do ---

    @precondition(lambda self: len(self.made) < len(LETTERS))
    @rule(branch=BRANCHES, tester=st.sampled_from(["ann", "ann", "bo", ""]))
    def push(self, branch: str, tester: str) -> None:
        """Push a commit that is built, serves in test, and is often tested at once."""
        message = f"commit {len(self.made)}"
        sha = self.story.commit(message, branch=branch)
        letter = LETTERS[len(self.made)]
        number = run_test(self.story, sha, message, letter, branch=branch)
        place = sum(made.branch == branch for made in self.made)
        self.made.append(Made(branch, place, number, str(pushed(letter).digest)))
        if tester:
            self._say(self.made[-1], tester, Verdict.TESTED)

    @precondition(lambda self: self.made)
    @rule(back=AGE, who=TESTERS, verdict=st.sampled_from(list(Verdict)))
    def mark(self, back: int, who: str, verdict: Verdict) -> None:
        """Let somebody say of a release what they think of it."""
        self._say(self._one(back), who, verdict)

    def _say(self, made: Made, who: str, verdict: Verdict) -> None:
        groups = frozenset({"testers"}) if who != "dee" else frozenset[str]()
        place, release = self._place("test"), self._release(made)
        try:
            self.story.write(
                lambda tx: marks.mark(
                    tx,
                    self.story.master,
                    place,
                    verdict=verdict,
                    person=who,
                    groups=groups,
                    note="so I think",
                    deployment=None,
                    release_id=release,
                    now=self.story.wait(1),
                )
            )
        except (Refused, Denied):
            return
        assert who != "dee"
        self.said[made.identity, who] = verdict

    @precondition(lambda self: self.made)
    @rule(
        back=AGE,
        who=st.sampled_from(["bo", "cy"]),
        word=st.booleans(),
        glass=st.sampled_from([False, False, False, True]),
        outcome=OUTCOMES,
    )
    def press(self, back: int, who: str, word: bool, glass: bool, outcome: str) -> None:
        """Press the button for any release, with or without the words."""
        made = self._one(back)
        before = self._serving()
        try:
            promote(self.story, str(made.run), who, outcome, rollback=word, break_glass=REASON if glass else None)
        except (Refused, UsageError, NotFound):
            return
        [started] = self._deployments(1)
        assert (started.identity, started.requested_by) == (made.identity, who)
        older = before is not None and made.is_older_than(before)
        assert started.kind == ("rollback" if older else "promote")
        assert word or not older, "nothing older goes out without the word"
        with self.story.master.database.read() as conn:
            broken = breakglass.of_deployments(conn, [started.id])
        assert (broken is not None) == glass
        verdicts = self._verdicts(made.identity)
        passed = {person for person, verdict in verdicts.items() if verdict is Verdict.TESTED}
        assert glass or passed - {who}, "nothing untested goes out, and who tested it does not approve it"
        assert glass or Verdict.REJECTED not in verdicts.values(), "nothing rejected goes out"
        assert self._serving() == (made if outcome == "done" else before)

    @precondition(lambda self: self.made)
    @rule(back=AGE)
    def reopen(self, back: int) -> None:
        """Let somebody open the gate anew."""
        release = self._stored(self._one(back))
        try:
            self.story.write(
                lambda tx: engine_gates.open_anew(tx, self._place("production"), release, "cy", self.story.wait(1))
            )
        except Refused:
            return

    @rule(hours=st.sampled_from([1, 24, 24 * 20]))
    def wait(self, hours: int) -> None:
        """Let time pass."""
        self.story.now += hours * HOUR
        self.story.write(lambda tx: engine_gates.lapse(tx, self.story.now))

    @precondition(lambda self: len(self.made) > 1)
    @rule(outcome=OUTCOMES)
    def roll_back(self, outcome: str) -> None:
        """Let somebody roll production back to what served before."""
        story, place = self.story, self._place("production")
        try:
            story.write(
                lambda tx: rolling_back.rollback(
                    tx,
                    story.master,
                    project=story.project(),
                    environment=place,
                    source="",
                    presser=Presser("cy", True, MANAGERS),
                    note="",
                    key=None,
                    now=story.wait(1),
                )
            )
        except Refused:
            return
        [started] = self._deployments(1)
        story.deploy(self._run_of(started), outcome)

    # --- what holds at every moment ---

    @invariant()
    def nothing_older_ever_went_out_as_a_promote(self) -> None:
        """Look at the whole history of production again."""
        known = {made.identity: made for made in self.made}
        served: Made | None = None
        for deployment in reversed(self._deployments(100)):
            if deployment.phase != "done":
                continue
            now = known[deployment.identity]
            if served is not None and now.is_older_than(served):
                assert deployment.kind == "rollback"
            served = now

    @invariant()
    def what_waits_at_the_gate_has_passed_its_testers(self) -> None:
        """Look at the one gate that may be open."""
        if not self.made:
            return
        with self.story.master.database.read() as conn:
            waiting = stored_gates.open_one(conn, self._place("production").id)
        if waiting is None:
            return
        verdicts = self._verdicts(waiting.identity)
        assert Verdict.TESTED in verdicts.values()
        assert Verdict.REJECTED not in verdicts.values()
        assert (waiting.gate.state, waiting.gate.lapses_at > self.story.now - HOUR) == (GateState.OPEN, True)

    # --- looking ---

    def _one(self, back: int) -> Made:
        return self.made[max(0, len(self.made) - 1 - back)]

    def _place(self, name: str) -> Environment:
        with self.story.master.database.read() as conn:
            found = environments.by_name(conn, self.story.project().id, name)
        assert found is not None
        return found

    def _deployments(self, limit: int) -> list[Deployment]:
        place = self._place("production")
        with self.story.master.database.read() as conn:
            return deployments.of_environment(conn, place.id, limit)

    def _serving(self) -> Made | None:
        place = self._place("production")
        with self.story.master.database.read() as conn:
            found = deployments.newest_current(conn, place.hosts)
        return next((made for made in self.made if found and made.identity == found.identity), None)

    def _verdicts(self, identity: str) -> dict[str, Verdict]:
        return {person: verdict for (about, person), verdict in self.said.items() if about == identity}

    def _stored(self, made: Made) -> StoredRelease:
        with self.story.master.database.read() as conn:
            return find_release(conn, self.story.project(), str(made.run))

    def _release(self, made: Made) -> int:
        return self._stored(made).id

    def _run_of(self, deployment: Deployment) -> int:
        with self.story.master.database.read() as conn:
            return runs.by_id(conn, jobs.by_id(conn, deployment.job_id).run_id).number


TestPromotes = Promotes.TestCase
TestPromotes.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
