"""How jobs share files: what is taken from whom, and what two jobs cannot both have changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.flows import JobKind, PlannedJob
from keepflow.core.sharing import Left, bases, merge, written

START = Left()


def test_r32_a_job_goes_on_where_the_one_it_needs_stopped() -> None:
    build = written(START, "build", ["out/app"])
    unit, docs = written(build, "unit", ["report.xml"]), written(build, "docs", ["site/index.html"])
    merged = merge(unit, docs)
    assert (merged.taken, merged.both) == (("site/index.html",), ())
    assert merged.left.stamps == {"out/app": "build", "report.xml": "unit", "site/index.html": "docs"}
    assert merged.left.history == {"build", "unit", "docs"}


def test_a_later_change_wins_over_the_one_it_was_made_on() -> None:
    build = written(START, "build", ["app"])
    small, other = written(build, "shrink", ["app"]), written(build, "docs", ["site"])
    assert merge(other, small).taken == ("app",)
    assert merge(small, other).taken == ("site",)


def test_what_two_jobs_changed_that_knew_nothing_of_each_other_is_named() -> None:
    merged = merge(written(START, "a", ["x", "y"]), written(START, "b", ["y", "z"]))
    assert (merged.taken, merged.both) == (("z",), ("y",))


def test_the_files_of_a_deploy_are_those_of_the_jobs_before_it() -> None:
    jobs = [
        PlannedJob("a", JobKind.SCRIPT),
        PlannedJob("b", JobKind.SCRIPT),
        PlannedJob("ship", JobKind.DEPLOY, ("a", "b")),
        PlannedJob("after", JobKind.SCRIPT, ("ship", "b")),
    ]
    assert bases(jobs) == {"a": (), "b": (), "after": ("a", "b")}


paths = st.lists(st.sampled_from("uvwxyz"), max_size=4, unique=True)


@given(st.lists(st.tuples(paths, st.lists(st.integers(0, 7), max_size=3)), min_size=1, max_size=8))
def test_a_merged_workspace_holds_of_every_path_a_change_that_nothing_in_it_replaced(
    work: list[tuple[list[str], list[int]]],
) -> None:
    lefts: list[Left] = []
    began: list[frozenset[str]] = []
    clashed = set[int]()
    for number, (changed, needs) in enumerate(work):
        left = START
        for need in sorted({need for need in needs if need < number}):
            merged = merge(left, lefts[need])
            assert not set(merged.taken) & set(merged.both)
            assert merged.left.history == left.history | lefts[need].history
            if merged.both or need in clashed:
                clashed.add(number)
            left = merged.left
        if number not in clashed:
            for path, stamp in left.stamps.items():
                writers = [n for n in map(int, left.history) if path in work[n][0]]
                assert int(stamp) in writers
                assert all(n == int(stamp) or str(n) in began[int(stamp)] for n in writers)
        began.append(left.history)
        lefts.append(written(left, str(number), changed))
