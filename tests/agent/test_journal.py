"""Journals: nothing acknowledged is lost, nothing torn is believed, nothing runs twice."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow import errors
from keepflow.agent.deployment import Deployment, Outcome
from keepflow.agent.journal import Journal, Journals
from keepflow.core.flows import Container, Volume
from keepflow.core.states import Phase

_text = st.text(max_size=40)
_facts = st.dictionaries(
    st.sampled_from(["act", "detail", "slot"]), _text | st.integers() | st.none() | st.booleans(), max_size=3
)


def deployment(number: int, **changes: Any) -> Deployment:
    facts = {
        "id": f"d-{number}",
        "fence": number,
        "nonce": f"n-{number}",
        "environment": "shop/test",
        "service": "shop",
        "instance": "main",
        "action": "deploy",
        "origin": "local",
        "repository": "shop",
        "image_id": "sha256:" + "1" * 64,
        "digest": None,
        "container": Container(env={"A": "ä\n"}, volumes=(Volume("data", "/data", True),), args=("x",)),
        **changes,
    }
    return Deployment(**facts)


@given(records=st.lists(_facts, max_size=8), cut=st.integers(min_value=0, max_value=4000))
def test_a_file_torn_anywhere_holds_exactly_its_whole_lines_and_goes_on(
    records: list[dict[str, Any]], cut: int
) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "journal"
        journal = Journal(path, write=True)
        ends = [0]
        for facts in records:
            journal.append("fact", **facts)
            ends.append(path.stat().st_size)
        written = journal.records.copy()
        journal.end()
        os.truncate(path, min(cut, ends[-1]))
        whole = max(index for index, end in enumerate(ends) if end <= min(cut, ends[-1]))
        again = Journal(path, write=True)
        assert again.records == written[:whole]
        again.append("more", n=1)
        again.end()
        assert [record["kind"] for record in Journal(path, write=False).records] == ["fact"] * whole + ["more"]


@given(st.binary(max_size=200))
def test_rubbish_behind_the_last_line_is_cut_off(rubbish: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "journal"
        path.write_bytes(b'{"kind":"fact","at":1}\n' + rubbish.replace(b"\n", b"") + b"\xff")
        journal = Journal(path, write=True)
        assert [record["kind"] for record in journal.records] == ["fact"]
        journal.append("more")
        assert Journal(path, write=False).last("more") is not None
        journal.end()


def test_a_deployment_comes_back_as_it_was_accepted(tmp_path: Path) -> None:
    journals = Journals(tmp_path)
    journals.accept(deployment(7)).end()
    (found,) = Journals(tmp_path).open_deployments()
    assert found == deployment(7)


def test_fences_only_rise_and_survive_a_lost_fence_file(tmp_path: Path) -> None:
    journals = Journals(tmp_path)
    journals.close(journals.accept(deployment(5)))
    (tmp_path / "fences.json").unlink()
    later = Journals(tmp_path)
    assert later.highest_fence("shop", "main") == later.highest_of_all() == 5
    for stale in (4, 5):
        with pytest.raises(errors.StaleFence):
            later.accept(deployment(stale, id=f"other-{stale}", nonce=f"other-{stale}"))
    later.accept(deployment(1, service="other", id="x", nonce="x")).end()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "x" * 81, "a\nb", "a@b"])
def test_an_id_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(errors.UsageError):
        Journals(tmp_path).accept(deployment(1, id=name))
    assert Journals(tmp_path).open_deployments() == []


def test_one_torn_in_its_first_line_was_never_accepted_and_may_come_again(tmp_path: Path) -> None:
    journals = Journals(tmp_path)
    (tmp_path / "open" / "kf-shop-main@3@d-3.jsonl").write_bytes(b'{"kind":"accepted","depl')
    again = Journals(tmp_path)
    assert again.open_deployments() == []
    again.accept(deployment(3)).end()
    assert journals.is_open("shop", "main")
    assert not journals.is_open("shop", "other")


def test_asking_again_tells_phase_and_outcome(tmp_path: Path) -> None:
    journals = Journals(tmp_path)
    journal = journals.accept(deployment(1))
    journal.append("phase", phase="gating", detail="")
    assert journals.find("d-1") == (deployment(1), Phase.GATING, None)
    outcome = Outcome(Phase.FAILED, "exited", "it ended", "sha256:x", {"phases": {"gating": 0.1}}, "log\n")
    journal.append("outcome", outcome=outcome.to_json())
    journals.close(journal)
    assert journals.find("d-1") == (deployment(1), Phase.GATING, outcome)
    assert journals.find("d-2") is None
    assert journals.open_deployments() == []


def test_of_the_closed_ones_the_last_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepflow.agent.journal._KEPT", 3)
    journals = Journals(tmp_path)
    for number in range(1, 13):
        journals.close(journals.accept(deployment(number)))
    assert sorted(path.name.split("@")[1] for path in (tmp_path / "closed").iterdir()) == ["10", "11", "12"]


def test_f02_what_was_appended_before_kill_9_is_there_afterwards(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom keepflow.agent.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), write=True)\n"
        "for number in range(1000):\n"
        "    journal.append('fact', number=number)\n"
        "    print(number, flush=True)\n"
        "    if number == 150: os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "j")], capture_output=True, text=True)
    said = [int(line) for line in done.stdout.split()]
    assert done.returncode == -9
    assert [record["number"] for record in Journal(tmp_path / "j", write=False).records] == said


def test_a_full_disk_is_said_and_leaves_no_half_line(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom keepflow import errors\n"
        "from keepflow.agent.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "journal = Journal(Path(sys.argv[1]), write=True)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    while True: journal.append('fact', text='x' * 100)\n"
        "except errors.OutOfSpace: print(len(journal.records))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "j")], capture_output=True, text=True)
    assert done.stderr == ""
    data = (tmp_path / "j").read_bytes()
    assert data.endswith(b"\n")
    assert data.count(b"\n") == int(done.stdout) > 0
