"""Logs are complete, masked, in order, and acknowledged only when they are on the disk (F19, R60, R61, P12)."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from keepflow.core.masking import MASK, mask, needles_for
from keepflow.engine.logfile import LogFile, agent_offset, file_offset, read_index

SECRET = b"tok-tok-9f3"
NEEDLES = needles_for(SECRET)

texts = st.lists(st.one_of(st.binary(max_size=40), st.just(SECRET), st.just(b"tok-"), st.just(b"\n")), max_size=25).map(
    b"".join
)


@settings(deadline=None)
@given(data=st.data(), text=texts)
def test_f19_any_drops_repeats_and_crashes_end_in_the_same_bytes(
    tmp_path_factory: object, data: st.DataObject, text: bytes
) -> None:
    path = Path(tmp_path_factory.mktemp("log")) / "steps.1.log"  # type: ignore[attr-defined]  # pytest's factory
    log, safe = LogFile(path, NEEDLES), 0
    while log.taken < len(text):
        act = data.draw(st.sampled_from(["next", "next", "next", "repeat", "gap", "sync", "crash", "torn"]))
        size = data.draw(st.integers(1, 30))
        if act == "next":
            assert log.append(log.taken, text[log.taken : log.taken + size]) > 0
        elif act == "repeat":
            at = data.draw(st.integers(0, log.taken))
            log.append(at, text[at : at + size])
        elif act == "gap":
            assert log.append(log.taken + 1, text[log.taken + 1 : log.taken + 1 + size]) == 0
        elif act == "sync":
            safe = log.sync()
        else:
            log.close()
            if act == "torn" and log.dirty:  # the last bytes did not reach the disk
                os.truncate(path, path.stat().st_size - data.draw(st.integers(0, log.dirty)))
            log = LogFile(path, NEEDLES)
            assert log.taken >= safe, "what was acknowledged survives"
    log.flush()
    log.sync()
    log.close()
    assert path.read_bytes() == mask(text, NEEDLES)
    assert LogFile(path, NEEDLES).taken == len(text)


def test_places_in_the_file_follow_from_the_agents_offsets(tmp_path: Path) -> None:
    path, log = tmp_path / "x.log", LogFile(tmp_path / "x.log", NEEDLES)
    for piece in (b"before\n", SECRET + b"\n", b"after\n"):
        log.append(log.taken, piece)
    log.flush()
    log.close()
    text = path.read_bytes()
    assert text == b"before\n" + MASK + b"\nafter\n"
    pieces = read_index(path)
    assert file_offset(pieces, 0) == 0
    assert file_offset(pieces, 7) == 7
    assert file_offset(pieces, 7 + len(SECRET) + 1) == text.index(b"after")
    assert agent_offset(pieces, len(text)) == 7 + len(SECRET) + 1 + 6


def test_a_log_without_secrets_has_no_index(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "x.log", NEEDLES)
    log.append(0, b"nothing to hide\n")
    log.sync()
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.log"]
