"""Reports keep their numbers through crashes, torn lines, confirmations and cuts of the file."""

from __future__ import annotations

import json
import resource
import zlib
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepflow.agent.reports import Reports
from keepflow.wire import messages


def started(fence: int) -> messages.JobStarted:
    return messages.JobStarted(fence=fence, at=1)


def ended(fence: int) -> messages.JobFinished:
    return messages.JobFinished(fence=fence, at=1, state="succeeded")


def fences(reports: Reports, after: int = 0) -> dict[int, int]:
    """Return number → fence of what is unconfirmed."""
    return {number: json.loads(text)["body"]["fence"] for number, text in reports.after(after, 10_000)}


def test_numbers_rise_by_one_and_go_on_after_a_restart(tmp_path: Path) -> None:
    reports = Reports(tmp_path / "reports")
    assert [reports.append(started(fence)) for fence in (7, 8)] == [1, 2]
    reports.close()
    again = Reports(tmp_path / "reports")
    assert again.append(started(9)) == 3
    assert fences(again) == {1: 7, 2: 8, 3: 9}


def test_what_is_confirmed_is_not_sent_again(tmp_path: Path) -> None:
    reports = Reports(tmp_path / "reports")
    for fence in range(5):
        reports.append(started(fence))
    reports.confirm(3)
    assert fences(reports) == {4: 3, 5: 4}
    assert reports.confirmed == 3
    reports.confirm(99)  # this disk went back in time: the master knows more of it than it does itself
    assert reports.append(started(5)) == 100


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 30), st.data())
def test_a_torn_tail_loses_only_the_torn_report(tmp_path: Path, count: int, data: st.DataObject) -> None:
    path = tmp_path / "torn"
    path.unlink(missing_ok=True)
    reports = Reports(path)
    for fence in range(count):
        reports.append(started(fence))
    reports.close()
    whole = path.read_bytes()
    kept = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:kept])
    again = Reports(path)
    lines = whole[:kept].count(b"\n")
    assert fences(again) == {number + 1: number for number in range(lines)}
    assert again.append(started(99)) == lines + 1
    again.close()
    assert len(fences(Reports(path))) == lines + 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 4000), st.binary(min_size=1, max_size=3))
def test_a_damaged_line_is_never_taken_for_a_report(tmp_path: Path, place: int, noise: bytes) -> None:
    path = tmp_path / "damaged"
    path.unlink(missing_ok=True)
    reports = Reports(path)
    for fence in range(20):
        reports.append(started(fence))
    reports.close()
    data = bytearray(path.read_bytes())
    place %= len(data)
    data[place : place + len(noise)] = noise
    path.write_bytes(data)
    found = fences(Reports(path))
    assert found == {number + 1: number for number in range(len(found))}


def test_the_file_is_cut_and_numbers_go_on(tmp_path: Path) -> None:
    path = tmp_path / "reports"
    reports = Reports(path)
    for fence in range(6000):
        reports.append(started(fence))
        reports.confirm(fence)  # all but the newest
    assert path.stat().st_size < 512 * 1024
    reports.confirm(6000)
    reports.close()
    again = Reports(path)
    assert again.confirmed == 6000
    assert again.append(started(1)) == 6001


def test_what_was_confirmed_stays_so_after_a_restart(tmp_path: Path) -> None:
    reports = Reports(tmp_path / "reports")
    for fence in range(3):
        reports.append(started(fence))
    reports.confirm(2)
    reports.close()
    assert fences(Reports(tmp_path / "reports")) == {3: 2}


def test_a_cut_file_keeps_what_is_unconfirmed(tmp_path: Path) -> None:
    path = tmp_path / "reports"
    reports = Reports(path)
    for fence in range(6000):
        reports.append(started(fence))
    reports.confirm(5990)
    size = path.stat().st_size
    reports.append(started(6000))
    reports.close()
    assert size < 10_000
    assert fences(Reports(path)) == {number: number - 1 for number in range(5991, 6002)}


def test_the_ends_in_the_file_are_known_when_it_is_opened(tmp_path: Path) -> None:
    reports = Reports(tmp_path / "reports")
    reports.append(started(5))
    reports.append(ended(5))
    reports.confirm(2)
    reports.close()
    assert Reports(tmp_path / "reports").finished == {5: 2}


def test_a_full_disk_keeps_reports_until_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "reports"
    reports = Reports(path)
    reports.append(started(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        assert reports.append(started(2)) == 2
        assert not reports.sync()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert reports.sync()
    assert fences(Reports(path)) == {1: 1, 2: 2}


def test_reports_of_a_later_version_are_kept_and_sent(tmp_path: Path) -> None:
    path = tmp_path / "reports"
    text = '{"type":"report","number":1,"body":{"type":"news","fence":3}}'
    path.write_bytes(b"%08x %b\n" % (zlib.crc32(text.encode()), text.encode()))
    reports = Reports(path)
    assert reports.append(started(4)) == 2
    assert fences(reports) == {1: 3, 2: 4}
