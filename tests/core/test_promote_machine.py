"""Random pushes, tests, marks, promotes and rollbacks against the rules alone: what may never happen, never does.

Production never moves to something older without the word rollback, and never to something that no tester passed, or
that one rejects, without breaking the glass.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from keepflow.core import gates
from keepflow.core.direction import Ancestry, Direction, Point, direction
from keepflow.core.gates import Gate, GateState
from keepflow.core.marks import Mark, Verdict, rejections, verifiers
from keepflow.core.promoting import Facts, Host, admit, guards
from keepflow.core.releases import Release
from keepflow.errors import Refused

REASON = "the shop takes no orders, and this mends it"
TESTERS = frozenset({"ann", "bo"})
PICK = st.sampled_from([0, 0, 0, 1, 1, 2, 4])  #: how many before the newest
LAPSE = 30


@dataclass(frozen=True)
class Built:
    """A release: its run, its commit, and every commit that is contained in it."""

    run: int
    sha: str
    contains: frozenset[str]

    @property
    def identity(self) -> str:
        """The digest of a release is its own."""
        return f"sha256:{self.run:064x}"

    def is_older_than(self, other: Built) -> bool:
        """Say so by history alone; of two that diverged, the one that was built first."""
        if self.sha in other.contains or other.sha in self.contains:
            return self.sha in other.contains and self.sha != other.sha
        return self.run < other.run


class Rules(RuleBasedStateMachine):
    """One environment with everything that people may do to it; each rule is asked as the engine asks it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.built: list[Built] = []
        self.served_in_test: set[int] = set()
        self.marks: list[Mark] = []
        self.gate: Gate | None = None
        self.closed: dict[int, GateState] = {}
        self.serving: Built | None = None
        self.four_eyes = True

    @initialize(four_eyes=st.booleans())
    def demand(self, four_eyes: bool) -> None:
        """Demand two people, or not."""
        self.four_eyes = four_eyes

    @rule(parent=PICK, fresh=st.sampled_from([False, False, True]), tester=st.sampled_from(["", "ann", "bo"]))
    def push(self, parent: int, fresh: bool, tester: str) -> None:
        """Build a commit on top of some other, or on top of nothing that is known; often it serves and is tested."""
        run = len(self.built) + 1
        before = frozenset[str]() if fresh or not self.built else self._one(parent).contains
        self.built.append(Built(run, f"{run:040x}", before | {f"{run:040x}"}))
        if tester:
            self.served_in_test.add(run)
            self.marks.append(Mark(tester, Verdict.TESTED, str(run), self.built[-1].identity, "", self._tick()))
            self._offer(self.built[-1])

    @precondition(lambda self: self.built)
    @rule(pick=PICK)
    def serve_in_test(self, pick: int) -> None:
        """Deploy a release to test."""
        self.served_in_test.add(self._one(pick).run)
        self._offer(self._one(pick))

    @precondition(lambda self: self.built)
    @rule(pick=PICK, who=st.sampled_from(["ann", "bo", "dee"]), verdict=st.sampled_from(list(Verdict)))
    def mark(self, pick: int, who: str, verdict: Verdict) -> None:
        """Let a tester say something; dee is in no group of testers."""
        made = self._one(pick)
        if made.run not in self.served_in_test:
            return
        self.marks.append(Mark(who, verdict, str(made.run), made.identity, "", self._tick()))
        if verdict is Verdict.TESTED:
            self._offer(made)
        elif self.gate is not None and self.gate.run == made.run:
            self._close(GateState.REJECTED)

    @precondition(lambda self: self.built)
    @rule(pick=PICK, who=st.sampled_from(["bo", "cy"]), word=st.booleans(), glass=st.booleans())
    def press(self, pick: int, who: str, word: bool, glass: bool) -> None:
        """Press the button."""
        made, before, shut = self._one(pick), self.serving, self.closed.get(self._one(pick).run)
        try:
            overridden = admit(guards(self._facts(made, who, word)), REASON if glass else None)
        except Refused:
            return
        self.serving = made
        if self.gate is not None and self.gate.run == made.run:
            self._close(GateState.PROMOTED)
        last = {said.person: said.verdict for said in self.marks if said.identity == made.identity}
        passed = {who for who, verdict in last.items() if verdict is Verdict.TESTED} & TESTERS
        assert made.run in self.served_in_test, "nothing goes out that never served in test"
        older = before is not None and made.is_older_than(before)
        assert word or not older, "nothing older goes out without the word"
        assert older or shut not in (GateState.SUPERSEDED, GateState.LAPSED), "no stale gate ships anything"
        assert bool(overridden) == glass
        assert glass or passed, "nothing untested goes out"
        assert glass or not self.four_eyes or passed - {who}, "who tested it alone does not approve it"
        assert glass or Verdict.REJECTED not in last.values(), "nothing rejected goes out"

    @rule(time=st.integers(1, 2 * LAPSE))
    def wait(self, time: int) -> None:
        """Let time pass."""
        self.now += time
        if self.gate is not None and gates.lapsed(self.gate, self.now):
            self._close(GateState.LAPSED)

    @precondition(lambda self: self.built)
    @rule(pick=PICK)
    def what_all_rules_let_through_needs_no_glass(self, pick: int) -> None:
        """Ask for a release that a tester passed, is newer than what serves, and waits at the gate."""
        made = self._one(pick)
        last = {said.person: said.verdict for said in self.marks if said.identity == made.identity}
        fine = last.get("ann") is Verdict.TESTED and Verdict.REJECTED not in last.values()
        newer = self.serving is None or not made.is_older_than(self.serving)
        if fine and newer and self.closed.get(made.run) not in (GateState.SUPERSEDED, GateState.LAPSED):
            assert admit(guards(self._facts(made, "cy", False)), None) == ()

    @invariant()
    def one_gate_is_open_at_most_and_for_what_passed(self) -> None:
        """Look at the gate."""
        if self.gate is None:
            return
        made = self.built[self.gate.run - 1]
        assert self.gate.state is GateState.OPEN
        assert verifiers(self._said(made), TESTERS)
        assert not rejections(self._said(made))

    def _facts(self, made: Built, who: str, word: bool) -> Facts:
        serving = Point(self.serving.sha, self.serving.run) if self.serving else None
        held = self.serving.contains if self.serving else frozenset[str]()
        ancestry = Ancestry(made.sha in held, self.serving is not None and self.serving.sha in made.contains)
        way = direction(serving, Point(made.sha, made.run), ancestry)
        assert (way is Direction.FIRST) == (self.serving is None)
        shut = self.closed.get(made.run)
        return Facts(
            release=Release("registry", made.identity, "registry.example.org/shop", made.identity),
            release_name=f"shop#{made.run}",
            environment="production",
            hosts=(Host("prod-1", joined=True, connected=True),),
            promote_from="test",
            done_in_source=made.run in self.served_in_test,
            approvers=(),
            person=who,
            person_has_role=True,
            person_in_group=False,
            underway=None,
            lock=None,
            quarantine=None,
            marks=self._said(made),
            verified_by=("testers",),
            verifiers=TESTERS,
            four_eyes=self.four_eyes,
            gate=str(shut) if shut in (GateState.SUPERSEDED, GateState.LAPSED) else None,
            direction=way,
            rollback=word,
        )

    def _offer(self, made: Built) -> None:
        passed = verifiers(self._said(made), TESTERS) and not rejections(self._said(made))
        if not passed or (self.serving is not None and self.serving.run >= made.run):
            return
        if self.gate is not None and self.gate.run != made.run:
            if not gates.gives_way(self.gate, made.run):
                self.closed[made.run] = GateState.SUPERSEDED
                return
            self._close(GateState.SUPERSEDED)
        if self.gate is None:
            self.closed.pop(made.run, None)
            self.gate = Gate(made.run, GateState.OPEN, self.now + LAPSE)

    def _close(self, state: GateState) -> None:
        assert self.gate is not None
        assert gates.may_close(self.gate, state)
        self.closed[self.gate.run] = state
        self.gate = None

    def _said(self, made: Built) -> tuple[Mark, ...]:
        return tuple(mark for mark in self.marks if mark.identity == made.identity)

    def _one(self, pick: int) -> Built:
        return self.built[max(0, len(self.built) - 1 - pick)]

    def _tick(self) -> int:
        self.now += 1
        return self.now


TestRules = Rules.TestCase
TestRules.settings = settings(max_examples=400, stateful_step_count=60, deadline=None)
