"""The section `notify:` of the master's file: every mistake at its line, secrets only in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepflow.config.desired import desired
from keepflow.config.server_file import load_server
from keepflow.core.notices import USUAL
from keepflow.errors import UsageError
from tests.config.problems import places, problems

TEXT = """\
projects: {keepwork: {repo: "https://github.com/example/keepwork.git"}}
notify:
  team:
    email: {server: mail.example.org, from: ci@example.org, to: team@example.org}
  ops:
    webhook: {url: "https://hooks.example.org/x?token=1", secret_file: ops.secret}
    on: [reverted, break-glass]
    projects: keepwork
"""


def refused(old: str, new: str) -> list[tuple[int, int, str]]:
    assert old in TEXT
    return places(problems(load_server, TEXT.replace(old, new), "keepflow.yml", Path("/srv")))


def test_channels_are_read_and_their_secrets_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "ops.secret").write_text("0123456789abcdef\n")
    told = desired(load_server(TEXT, "keepflow.yml", tmp_path)).notify
    assert (told["team"].kind, set(told["team"].on), told["team"].secrets) == ("email", USUAL, {})
    assert told["team"].settings["from"] == "ci@example.org"
    assert told["team"].settings["to"] == ["team@example.org"]
    ops = told["ops"]
    assert (ops.secrets, ops.on, ops.projects) == (
        {"secret": "0123456789abcdef"},
        ("break-glass", "reverted"),
        ("keepwork",),
    )
    assert ops.settings == {"url": "https://hooks.example.org/x?token=1", "private": False}
    assert "0123456789abcdef" not in repr(ops)


def test_a_secret_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"notify\.ops\.webhook\.secret_file: cannot read"):
        desired(load_server(TEXT, "keepflow.yml", tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("    email: {", "    emial: {", (4, 5, "missing")),
        ("server: mail.example.org, ", "", (4, 12, "missing")),
        ("to: team@example.org", "to: [a@b, 'x@y\\r\\nBcc: z']", (4, 71, "bad-address")),
        ("to: team@example.org", "to: []", (4, 65, "empty")),
        ("from: ci@", "form: ci@", (4, 39, "unknown-key")),
        ("on: [reverted, break-glass]", "on: [reverted, brake-glass]", (7, 20, "bad-value")),
        ("on: [reverted, break-glass]", "on: []", (7, 9, "empty")),
        ("projects: keepwork", "projects: keepwrok", (8, 15, "unknown-project")),
        ("  ops:\n", "  ops:\n    chat: {url_file: x}\n", (7, 5, "conflict")),
        ("secret_file: ops.secret", "secret: abc", (6, 59, "unknown-key")),
        ("  team:", "  Team!:", (3, 3, "bad-name")),
    ],
)
def test_every_mistake_is_told_at_its_place(old: str, new: str, place: tuple[int, int, str]) -> None:
    assert place in refused(old, new)


def test_a_channel_that_is_no_mapping_is_told() -> None:
    found = problems(load_server, "notify: {team: mail}", "keepflow.yml", Path("/srv"))
    assert [problem.code for problem in found] == ["wrong-type"]
