"""What a step tells by file: plain `key=value` lines of a plain file, and nothing that is anything else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepflow.agent import outputs


def test_lines_come_back_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "output"
    path.write_text("image=shop:1\n\n# a remark\nimage = shop:2 \nurl=https://x/?a=b\n")
    assert outputs.read(path) == ([("image", "shop:1"), ("image", "shop:2"), ("url", "https://x/?a=b")], [])


def test_a_line_that_is_none_is_told_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "output"
    path.write_text("image=a\nno line\n=b\nx y=c\n")
    assert outputs.read(path) == (
        [("image", "a")],
        [f"output:{number}: not a line of the form key=value" for number in (2, 3, 4)],
    )


def test_no_file_says_nothing(tmp_path: Path) -> None:
    assert outputs.read(tmp_path / "missing") == ([], [])


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("image=secret\n")
    (tmp_path / "output").symlink_to(tmp_path / "secret")
    pairs, complaints = outputs.read(tmp_path / "output")
    assert not pairs
    assert complaints == ["output is not a plain file and was not read"]


def test_pipes_directories_and_devices_do_not_hold_the_agent_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "pipe", tmp_path / "directory", Path("/dev/zero")):
        assert outputs.read(path) == ([], [f"{path.name} is not a plain file and was not read"])


def test_a_file_over_the_limit_is_not_read_at_all(tmp_path: Path) -> None:
    path = tmp_path / "output"
    path.write_text("image=a\n" + "x" * outputs.LIMIT)
    pairs, complaints = outputs.read(path)
    assert not pairs
    assert "more than 65536 bytes" in complaints[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_any_bytes_can_be_read(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "output"
    path.write_bytes(data)
    pairs, _ = outputs.read(path)
    for key, _ in pairs:
        assert key.isidentifier()
        assert key.isascii()


@pytest.mark.parametrize("border", ["\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_text_from_outside_that_is_one_line_to_a_shell_adds_no_second_pair(tmp_path: Path, border: str) -> None:
    """`echo "subject=$(git log -1 --format=%s)" >>"$KEEPFLOW_OUTPUT"` with a hostile subject claims no image."""
    told = tmp_path / "output"
    told.write_bytes(f"subject=Mend it{border}image=evil:1{border}LD_PRELOAD=/tmp/evil.so\nnext=1\r\n".encode())
    pairs, complaints = outputs.read(told)
    assert [key for key, _ in pairs] == ["subject", "next"]
    assert pairs[1] == ("next", "1"), "an ending as Windows writes it is no part of the value"
    assert complaints == []
