"""The agent's verbs: what they print, and with which exit code they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from keepflow.agent.state import Identity, State
from keepflow.cli.main import run
from keepflow.crypto import keys
from tests.fakes import FakeMaster, serve_master


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the verbs find the agent's directory."""
    monkeypatch.setenv("KEEPFLOW_AGENT_STATE", str(tmp_path / "agent"))
    return tmp_path / "agent"


def test_join_takes_the_token_from_stdin_or_a_file(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve_master() as master:
        (tmp_path / "token").write_text(master.token("prod-1") + "\n")
        assert run(["agent", "join", master.url, "--token-file", str(tmp_path / "token")]) == 0
        assert f"joined {master.url} as agent prod-1" in capsys.readouterr().err
        with CliRunner().isolation(master.token("prod-2")):
            assert run(["agent", "join", master.url, "--state", str(tmp_path / "second")]) == 0
    assert State(root).identity().agent == "prod-1"
    assert State(tmp_path / "second").identity().agent == "prod-2"


def test_a_bad_token_is_usage_and_a_burnt_one_is_authentication(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "token"
    with serve_master() as master:
        token.write_text("nonsense")
        assert run(["agent", "join", master.url, "--token-file", str(token)]) == 2
        assert run(["agent", "join", master.url, "--token-file", str(tmp_path / "missing")]) == 2
        assert run(["agent", "join", "ftp://ci.example.org", "--token-file", str(token)]) == 2
        token.write_text(master.token("prod-1"))
        master.join_tokens.clear()
        assert run(["agent", "join", master.url, "--token-file", str(token)]) == 4
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert master.key.public.key_id not in said.replace("sha256", ""), "no token is repeated on a terminal"
    assert not State(root).joined


def test_join_refuses_an_unencrypted_master_elsewhere_before_it_asks(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(FakeMaster().token("prod-1"))
    asked = ["agent", "join", "http://192.0.2.1:7070", "--token-file", str(tmp_path / "token")]
    assert run(asked) == 7
    assert "--insecure-http" in capsys.readouterr().err
    assert not State(root).joined


def test_join_takes_an_unencrypted_master_elsewhere_when_told_so(root: Path, tmp_path: Path) -> None:
    with serve_master() as master:
        (tmp_path / "token").write_text(master.token("prod-1"))
        address = master.url.replace("127.0.0.1", "0.0.0.0")  # noqa: S104 - dialled: another address, though Linux leads it here
        asked = ["agent", "join", address, "--token-file", str(tmp_path / "token")]
        assert run(asked) == 7
        assert run([*asked, "--insecure-http"]) == 0
    assert State(root).identity().url == address


def test_status_says_who_and_whether_it_runs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agent", "status"]) == 2
    state = State(root)
    state.claim()
    state.save_identity(Identity("prod-1", "https://ci.example.org", (keys.generate().public,)))
    assert run(["agent", "status"]) == 0
    assert "prod-1" in capsys.readouterr().out
    state.release()
    assert run(["agent", "status"]) == 1
    assert "running no" in capsys.readouterr().out


def test_run_says_what_is_missing(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "agent.yml"
    assert run(["agent", "run", "--config", str(config)]) == 2
    assert "agent.example.yml" in capsys.readouterr().err
    config.write_text("master: https://ci.example.org\ncapabilities: [run]\nmasster: x\n")
    assert run(["agent", "run", "--config", str(config)]) == 2
    assert "masster" in capsys.readouterr().err
    config.write_text("master: https://ci.example.org\ncapabilities: [run]\n")
    assert run(["agent", "run", "--config", str(config)]) == 2
    assert "keepflow agent join" in capsys.readouterr().err
    assert State(root).holder() is None


@pytest.mark.usefixtures("root")
def test_doctor_prints_what_it_found_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "agent.yml"
    with serve_master() as master:
        config.write_text(f"master: {master.url}\ncapabilities: [run]\ndocker: {{host: 'unix://{tmp_path}/none'}}\n")
        asked = ["agent", "doctor", "--config", str(config)]
        assert run([*asked, "--before-join"]) == 0
        assert run(asked) == 1
        lines = capsys.readouterr().out.splitlines()
        assert any(line.startswith("failed") and "belongs to no master" in line for line in lines)
        assert any("→ keepflow agent join" in line for line in lines)
        assert run([*asked, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["version"] == 1
    assert {"subject", "state", "sentence", "mend"} == set(told["findings"][0])
    assert "failed" in {finding["state"] for finding in told["findings"]}


@pytest.mark.usefixtures("root")
def test_doctor_without_a_file_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agent", "doctor", "--config", str(tmp_path / "none.yml")]) == 1
    assert "cannot be read" in capsys.readouterr().out
