"""Which flows an event starts and why (R02, R05, R07)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.events import Event, EventKind
from keepflow.core.flows import Flow, FlowFile, JobKind, JobPart, Step, Trigger
from keepflow.core.matching import OWN_EMAIL, Changes, asks_what_changed, match, own_work, skip_word
from keepflow.core.patterns import decide_path, path_pattern_problem
from tests import hostile

SHA = "a" * 40


def flow(name: str = "dev", on: Trigger | None = None) -> Flow:
    return Flow(name, on or Trigger(push=(name,)), (JobPart(JobKind.SCRIPT, Step("run", "make", {"script": "make"})),))


def file(*flows: Flow) -> FlowFile:
    return FlowFile({found.name: found for found in flows})


def push(branch: str) -> Event:
    return Event(EventKind.PUSH, f"refs/heads/{branch}", SHA)


KEEPWORK = file(
    flow("dev"), flow("test", Trigger(push=("master", "main"))), flow("wip", Trigger(push=("wip/**", "!wip/x")))
)


def test_the_branch_selects_the_flow_and_every_flow_says_why_or_why_not() -> None:
    decision = match(push("dev"), KEEPWORK)
    assert [(found.flow, found.why) for found in decision.matches] == [("dev", "branch 'dev' fits push: dev")]
    assert decision.why_not == {
        "test": "branch 'dev' fits none of push: master, main",
        "wip": "branch 'dev' fits none of push: wip/**, !wip/x",
    }
    assert decision.reason is None


def test_an_exception_is_named_as_the_reason() -> None:
    assert match(push("wip/x"), KEEPWORK).why_not["wip"] == "branch 'wip/x' is taken out by push: !wip/x"


def test_a_branch_that_no_flow_wants_is_decided_and_no_failure() -> None:
    decision = match(push("other"), KEEPWORK)
    assert decision.matches == ()
    assert decision.reason is not None
    assert decision.reason.code == "no-match"
    assert decision.reason.sentence == "no flow starts for a push to branch 'other'"


def test_one_event_may_start_several_flows() -> None:
    both = file(flow("a", Trigger(push=("**",))), flow("b", Trigger(push=("dev",))))
    assert [found.flow for found in match(push("dev"), both).matches] == ["a", "b"]


@pytest.mark.parametrize(
    ("event", "on"),
    [
        (Event(EventKind.TAG, "refs/tags/v1", SHA), Trigger(tag=("v*",))),
        (Event(EventKind.PULL_REQUEST, "refs/pull/7/head", SHA), Trigger(pull_request=True)),
        (Event(EventKind.MANUAL, "refs/heads/x", SHA), Trigger(manual=True)),
        (Event(EventKind.SCHEDULE, "refs/heads/x", SHA), Trigger(cron="0 2 * * *")),
    ],
)
def test_each_kind_of_event_starts_what_names_it_and_nothing_else(event: Event, on: Trigger) -> None:
    both = file(flow("yes", on), flow("no", Trigger(push=("dev",))))
    decision = match(event, both)
    assert [found.flow for found in decision.matches] == ["yes"]
    assert decision.why_not == {"no": f"its 'on' does not name {event.kind.value}"}


@pytest.mark.parametrize("branch", hostile.NAMES)
def test_a_hostile_branch_is_answered_in_printable_lines(branch: str) -> None:
    decision = match(push(branch), KEEPWORK)
    sentences = [*decision.why_not.values(), *(found.why for found in decision.matches)]
    assert len(sentences) == 3
    assert all(sentence.isprintable() for sentence in sentences)


@given(st.builds(push, st.text(max_size=40)), st.lists(st.text(max_size=10), max_size=4))
def test_every_flow_gets_exactly_one_sentence(event: Event, patterns: list[str]) -> None:
    flows = file(flow("one", Trigger(push=tuple(patterns))), flow("two", Trigger(manual=True)))
    decision = match(event, flows)
    assert {found.flow for found in decision.matches} | set(decision.why_not) == {"one", "two"}
    assert not {found.flow for found in decision.matches} & set(decision.why_not)


@pytest.mark.parametrize("word", ["skip ci", "ci skip", "no ci", "skip-ci", "ci-skip", "Skip CI", "CI-SKIP"])
def test_a_skip_word_is_found_anywhere_in_the_message(word: str) -> None:
    assert skip_word(f"Mend the page\n\n[{word}]") == f"[{word}]".lower()


@pytest.mark.parametrize("message", ["", "skip ci", "[skip]", "[skip  ci]", "(skip ci)", "[skipci]"])
def test_other_words_skip_nothing(message: str) -> None:
    assert skip_word(message) is None


# --- what changed ----------------------------------------------------------------------------------------------------

WEB = Trigger(push=("**",), pull_request=True, paths=("web/**", "!web/*.md"), paths_ignore=("**/test/**",))


def answer(on: Trigger, *files: str, unknown: str = "") -> tuple[bool, str]:
    decision = match(push("dev"), file(flow("web", on)), Changes(files, unknown))
    return bool(decision.matches), decision.matches[0].why if decision.matches else decision.why_not["web"]


def test_r02_one_changed_file_that_fits_starts_the_flow_and_is_named() -> None:
    assert answer(WEB, "a.c", "web/x/index.html") == (
        True,
        "branch 'dev' fits push: **; 'web/x/index.html' changed and fits paths: web/**",
    )


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ((), "no file changed"),
        (("a.c",), "the only changed file, 'a.c', fits none of paths: web/**, !web/*.md"),
        (("a.c", "web/README.md"), "none of 2 changed files fits paths: web/**, !web/*.md"),
        (("web/test/a",), "the only changed file, 'web/test/a', is left out by paths_ignore: **/test/**"),
        (("web/test/a", "web/b/test/c"), "each of 2 changed files is left out by paths_ignore: **/test/**"),
        (
            ("web/test/a", "x"),
            "none of 2 changed files fits paths: web/**, !web/*.md without being left out by paths_ignore",
        ),
    ],
)
def test_a_push_that_changes_nothing_of_interest_says_why_it_starts_nothing(files: tuple[str, ...], why: str) -> None:
    assert answer(WEB, *files) == (False, why)


def test_paths_ignore_alone_lets_everything_else_start() -> None:
    on = Trigger(push=("**",), paths_ignore=("docs/", "*.md"))
    assert answer(on, "docs/a/b", "README.md")[0] is False
    assert answer(on, "docs/a", "src/README.md") == (True, "branch 'dev' fits push: **; 'src/README.md' changed")


def test_when_nobody_can_tell_what_changed_the_flow_starts_and_says_so() -> None:
    starts, why = answer(WEB, unknown="the old commit is gone")
    assert (starts, why) == (True, "branch 'dev' fits push: **; its paths are not asked, for the old commit is gone")


def test_paths_are_asked_of_pushes_and_pull_requests_only() -> None:
    on = Trigger(push=("**",), tag=("**",), pull_request=True, manual=True, cron="@daily", paths=("web/**",))
    for kind in EventKind:
        event = Event(kind, "refs/tags/v1" if kind == EventKind.TAG else "refs/heads/dev", SHA)
        started = bool(match(event, file(flow("web", on)), Changes(("a.c",))).matches)
        assert started is (kind not in (EventKind.PUSH, EventKind.PULL_REQUEST))
        assert asks_what_changed(event, file(flow("web", on))) is not started
    assert not asks_what_changed(push("dev"), file(flow("dev")))


names = st.lists(st.sampled_from(["web", "docs", "test", "a.md", "b.c"]), min_size=1, max_size=4).map("/".join)


@given(st.lists(names, max_size=6), st.lists(names.map(lambda name: name + "/"), max_size=3))
def test_a_flow_stays_still_exactly_when_every_file_is_ignored(files: list[str], folders: list[str]) -> None:
    started, why = answer(Trigger(push=("**",), paths_ignore=tuple(folders)), *files)
    left = [name for name in files if not any(name.startswith(folder) for folder in folders)]
    assert started is (bool(left) or not folders)
    assert why.isprintable()


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        ("docs/", ["docs/a", "docs/a/b"], ["docs", "a/docs/b"]),
        ("**/*.md", ["a.md", "x/y/a.md"], ["a.mdx"]),
        ("*.md", ["a.md"], ["x/a.md"]),
        ("src/**", ["src/a", "src/a/b"], ["src", "srca"]),
        ("a[1].c", ["a[1].c"], ["a1.c"]),
    ],
)
def test_patterns_of_paths(pattern: str, fits: list[str], fits_not: list[str]) -> None:
    assert all(decide_path((pattern,), name).selected for name in fits)
    assert not any(decide_path((pattern,), name).selected for name in fits_not)


@pytest.mark.parametrize("pattern", ["", "!", "/src", "./src", "a//b", "../x", "a/../b", "a\nb", "x" * 256])
def test_a_pattern_no_file_can_fit_is_a_problem(pattern: str) -> None:
    assert path_pattern_problem(pattern)


@pytest.mark.parametrize("pattern", ["src/**", "!src/old/", "a b.txt", "[id].tsx", "*.c~"])
def test_a_pattern_a_file_can_fit_is_none(pattern: str) -> None:
    assert path_pattern_problem(pattern) is None


# --- what keepflow makes itself --------------------------------------------------------------------------------------


def test_r07_what_keepflow_commits_and_tags_starts_nothing() -> None:
    tag = Event(EventKind.TAG, "refs/tags/keepflow/v1", SHA)
    assert "made this commit itself" in (own_work(push("dev"), OWN_EMAIL) or "")
    assert "made this tag itself" in (own_work(tag, "") or "")
    assert "made this tag itself" in (own_work(Event(EventKind.TAG, "refs/tags/v1", SHA), OWN_EMAIL) or "")


def test_r07_what_people_make_is_theirs() -> None:
    assert own_work(push("keepflow/x"), "ann@example.org") is None
    assert own_work(Event(EventKind.TAG, "refs/tags/keepflow-1", SHA), "") is None
    assert own_work(Event(EventKind.MANUAL, "refs/heads/dev", SHA), OWN_EMAIL) is None, "asked for by a person"
