"""What would come back after a reboot."""

from __future__ import annotations

import pytest

from keepflow.agent.doctor import boot


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ({"keepflow-agent": "enabled", "docker": "enabled"}, [("ok", "keepflow-agent, docker would come back")]),
        ({"keepflow-agent": "enabled", "docker": "disabled"}, [("warning", "docker would not come back")]),
        ({"keepflow-agent": "masked", "nginx": "disabled"}, [("warning", "keepflow-agent, nginx would not come back")]),
        ({"keepflow-agent": "enabled", "docker": "not-found"}, [("ok", "keepflow-agent would come back")]),
        ({"keepflow-agent": "enabled", "docker": "static"}, [("ok", "keepflow-agent, docker would come back")]),
        ({"keepflow-agent": "", "docker": "not-found"}, []),
    ],
)
def test_units_that_stay_down_are_named(states: dict[str, str], told: list[tuple[str, str]]) -> None:
    assert [(finding.state.value, finding.sentence) for finding in boot.judge(states)] == told
