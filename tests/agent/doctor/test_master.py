"""The master under the doctor's eyes: reached, recognised, in time, and linked to."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keepflow.agent import enrol
from keepflow.agent.doctor import master
from keepflow.agent.doctor.finding import Finding
from keepflow.agent.doctor.patient import Patient
from keepflow.agent.enrol import JoinToken
from keepflow.agent.standing import Standing
from keepflow.crypto import keys
from tests.fakes import FakeMaster
from tests.real.waiting import free_port


def states(found: list[Finding]) -> dict[str, str]:
    return {finding.subject: finding.state.value for finding in found}


def joined(patient: Patient, known_master: FakeMaster) -> Patient:
    patient.state.claim()
    enrol.join(patient.state, known_master.url, JoinToken.parse(known_master.token("prod-1")))
    patient.state.release()
    return patient


def test_before_joining_the_master_is_reached_and_its_key_shown(
    make_patient: Callable[..., Patient], known_master: FakeMaster
) -> None:
    found = master.look(make_patient(before_join=True))
    assert states(found) == {"master": "ok", "clock": "ok", "agent": "ok"}
    assert known_master.key.public.key_id in found[0].sentence
    assert states(master.look(make_patient()))["agent"] == "failed"


def test_the_pinned_key_is_proven_without_a_session(
    make_patient: Callable[..., Patient], known_master: FakeMaster
) -> None:
    found = master.look(joined(make_patient(), known_master))
    assert states(found) == {"master": "ok", "clock": "ok", "agent": "warning"}
    assert "holds the key this agent pinned" in found[0].sentence
    assert known_master.hellos == [], "a second session of the agent's key would block the agent"


def test_a_master_with_another_key_is_told(make_patient: Callable[..., Patient], known_master: FakeMaster) -> None:
    patient = joined(make_patient(), known_master)
    known_master.signs_with = keys.generate()
    assert states(master.look(patient))["master"] == "failed"


@pytest.mark.parametrize(
    ("ahead", "state", "word"), [(3.0, "ok", "behind"), (90.0, "warning", "behind"), (-90.0, "warning", "ahead")]
)
def test_the_clock_is_compared(
    make_patient: Callable[..., Patient], known_master: FakeMaster, ahead: float, state: str, word: str
) -> None:
    known_master.ahead = ahead
    clock = next(finding for finding in master.look(make_patient()) if finding.subject == "clock")
    assert clock.state == state
    assert word in clock.sentence
    assert f"{abs(ahead):.0f}" in clock.sentence


def test_a_master_that_is_not_there_and_one_that_is_none(
    make_patient: Callable[..., Patient], known_master: FakeMaster
) -> None:
    gone = master.look(make_patient(master=f"http://127.0.0.1:{free_port()}"))
    assert states(gone)["master"] == "failed"
    assert "refused" in gone[0].sentence
    other = master.look(make_patient(master=f"{known_master.url}/somewhere"))
    assert states(other)["master"] == "failed"
    assert "answers 404" in other[0].sentence


def test_what_the_running_agent_says_of_its_link_is_repeated(
    make_patient: Callable[..., Patient], known_master: FakeMaster
) -> None:
    patient = joined(make_patient(), known_master)
    patient.state.claim()
    Standing(False, "the master is leaving").write(patient.state)
    (agent,) = [finding for finding in master.look(patient) if finding.subject == "agent"]
    assert (agent.state, "the master is leaving" in agent.sentence) == ("failed", True)
    Standing(True, "linked").write(patient.state)
    assert states(master.look(patient))["agent"] == "ok"


def test_an_unreadable_standing_is_none(make_patient: Callable[..., Patient]) -> None:
    patient = make_patient()
    assert Standing.read(patient.state) is None
    patient.state.claim()
    (patient.state.root / "link.json").write_text("{")
    assert Standing.read(patient.state) is None
