"""Which file a file is, guessed from what it holds."""

from __future__ import annotations

import pytest

from keepflow.config.detection import detect, problems_of
from tests.config import test_agent_file, test_flow_file, test_server_file

FLOW, SERVER, AGENT = test_flow_file.KEEPWORK, test_server_file.KEEPWORK, test_agent_file.KEEPWORK


@pytest.mark.parametrize("text", [FLOW, SERVER, AGENT])
def test_a_good_file_of_any_kind_has_no_problems_under_any_name(text: str) -> None:
    assert problems_of(text.encode(), "x.yml", test_flow_file.KINDS) == []


@pytest.mark.parametrize(
    ("value", "file", "kind"),
    [
        ({"flows": {}}, "agent.yml", "flow"),
        ({"environments": {}}, ".keepflow.yml", "server"),
        ({"capabilities": []}, ".keepflow.yml", "agent"),
        ({}, "/etc/keepflow/agent.yml", "agent"),
        ({}, "local-agent.yml", "agent"),
        (None, "keepflow.yml", "server"),
        ([], ".keepflow.yml", "flow"),
        ("x", "anything", "flow"),
    ],
)
def test_what_it_holds_decides_and_else_its_name(value: object, file: str, kind: str) -> None:
    assert detect(value, file) == kind


def test_a_kind_that_is_said_is_not_guessed() -> None:
    codes = {problem.code for problem in problems_of(AGENT.encode(), "agent.yml", test_flow_file.KINDS, "flow")}
    assert codes == {"missing", "unknown-key"}
