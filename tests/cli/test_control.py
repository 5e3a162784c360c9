"""`rerun`, `pause`, `resume` and `why` on the command line: what they print, and the exit codes (R71)."""

from __future__ import annotations

from tests.cli.conftest import Keepflow


def test_r71_rerun_prints_the_new_run_and_how_to_choose(keepflow: Keepflow) -> None:
    said = keepflow("rerun", "keepwork#5", "--from", "build")
    assert said.code == 0, said.err
    again = said.out.strip()
    assert again.startswith("keepwork#")
    assert f"started {again}" in said.err
    shown = keepflow("show", again, "-o", "json").json
    assert shown["rerun_of"] == 5
    assert keepflow("rerun", "keepwork#5", "--failed", "--from", "build").code == 2
    wrong = keepflow("rerun", "keepwork#5", "--from", "biuld")
    assert (wrong.code, "did you mean 'build'?" in wrong.err) == (1, True)
    refused = keepflow("rerun", again)
    assert (refused.code, f"keepflow cancel {again}" in refused.err) == (7, True)
    promoted = keepflow("rerun", "keepwork#2")
    assert (promoted.code, "ask for a new one" in promoted.err) == (7, True)


def test_r71_pause_and_resume_say_who_and_why(keepflow: Keepflow) -> None:
    assert keepflow("pause", "keepwork").out == "keepwork is not paused\n"
    assert keepflow("resume", "keepwork").code == 7
    said = keepflow("pause", "keepwork", "-m", "the registry moves")
    assert (said.code, "the registry moves" in said.out) == (0, True)
    assert keepflow("pause", "keepwork", "-o", "json").json["paused_why"] == "the registry moves"
    assert keepflow("resume", "keepwork").out == "keepwork goes on\n"


def test_r71_why_says_what_it_means_and_what_helps(keepflow: Keepflow) -> None:
    out = keepflow("why", "keepwork#5").out
    assert "because          build: step 2 failed: exit code 137" in out
    assert "the script failed: its exit code was not 0" in out
    assert "keepflow rerun" in out
    data = keepflow("why", "keepwork#5", "-o", "json").json
    assert (data["reason_code"], data["ahead"]) == ("exit", [])
