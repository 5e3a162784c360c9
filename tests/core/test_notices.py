"""Notices: no text from outside becomes more than text, and the words fit how runs end."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.notices import GIVEN_UP_AFTER, Notice, Word, as_html, as_text, next_try, subject, words_of_run
from keepflow.core.states import State

HOSTILE = st.text(max_size=80) | st.sampled_from(
    ['<img src=x onerror="alert(1)">', "a\r\nBcc: all@example.org", "</pre><script>", "&lt;", "\x1b]0;t\x07", "{{7*7}}"]
)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


def _notice(title: str, line: str, excerpt: str) -> Notice:
    return Notice("kf-1", "broken", title, (line,), "https://ci.example.org/r/1", "t", 1, {"run": 1}, excerpt)


@given(HOSTILE, HOSTILE, HOSTILE)
def test_r64_html_holds_only_our_own_tags(title: str, line: str, excerpt: str) -> None:
    parser = _Tags()
    parser.feed(as_html(_notice(title, line, excerpt)))
    shown = [tag for tag in parser.tags if tag != "pre"]
    assert shown == ["html", "body", "h3", "p", "p", "a"]


@given(HOSTILE, HOSTILE)
def test_r64_a_subject_is_one_printable_line(title: str, line: str) -> None:
    assert subject(_notice(title, line, "")).isprintable()
    assert as_text(_notice(title, line, "")).count("\n") == 3


@given(HOSTILE, HOSTILE, HOSTILE)
def test_a_notice_survives_being_stored(title: str, line: str, excerpt: str) -> None:
    notice = _notice(title, line, excerpt)
    assert Notice.from_json(notice.to_json()) == notice


def test_r64_words_of_how_a_run_ended() -> None:
    good, bad = State.SUCCEEDED, State.FAILED
    assert words_of_run(bad, None) == {Word.FAILED, Word.FINISHED, Word.BROKEN}
    assert words_of_run(bad, bad) == {Word.FAILED, Word.FINISHED}
    assert words_of_run(State.LOST, good) == {Word.FAILED, Word.FINISHED, Word.BROKEN}
    assert words_of_run(good, bad) == {Word.FINISHED, Word.RECOVERED}
    assert words_of_run(good, good) == words_of_run(good, None) == {Word.FINISHED}
    assert words_of_run(State.CANCELLED, bad) == {Word.FINISHED}
    assert words_of_run(State.SUPERSEDED, bad) == words_of_run(State.SKIPPED, None) == frozenset()


def test_tries_grow_apart_and_end_after_a_day() -> None:
    now, tries, waits = 0, 0, []
    while (after := next_try(tries := tries + 1, 0, now)) is not None:
        waits.append(after - now)
        now = after
    assert waits == sorted(waits)
    assert 0 < now <= GIVEN_UP_AFTER
    assert len(waits) < 50
