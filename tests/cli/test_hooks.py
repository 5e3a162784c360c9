"""`keepflow apply` and `keepflow project hooks`: what forges said of the webhooks that are kept there (R11, R75)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from keepflow.engine.hooking import HookKeeper
from tests.cli.conftest import Keepflow
from tests.forges.deliveries import headers, payload
from tests.forges.served import TOKEN, ServedForge, served_forge
from tests.web.story import Story


@pytest.fixture
def forge(told: tuple[str, Story]) -> Iterator[ServedForge]:
    keeper = HookKeeper(told[1].master)
    with served_forge("gitea") as made:
        keeper.start()
        yield made
        keeper.stop(5)


@pytest.fixture
def file(forge: ServedForge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server file whose one project wants its hook; it keeps what is there otherwise."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hooks.token").write_text(f"{TOKEN}\n")
    (tmp_path / "hooks.token").chmod(0o600)
    path = tmp_path / "keepflow.yml"
    hook = f"hook: {{token_file: hooks.token, api: '{forge.api}', private: true}}"
    path.write_text(
        f"projects:\n  hooked:\n    repo: https://127.0.0.1:1/team/keepwork.git\n    forge: gitea\n    {hook}\n"
    )
    return path


@pytest.mark.usefixtures("file")
def test_r11_apply_says_what_the_forge_said_and_again_mends_it(
    keepflow: Keepflow, forge: ServedForge, told: tuple[str, Story]
) -> None:
    forge.refuse = [(403, {"message": "token does not have at least one of required scope(s): [write:repository]"})]
    done = keepflow("apply", "--yes")
    assert done.code == 0, "the project is there, and its pushes are found by the sweep"
    assert "warning: the webhook of hooked at https://127.0.0.1:1/team/keepwork.git could not be set up" in done.err
    assert "answered 403: token does not have at least one of required scope(s)" in done.err
    assert "write:repository, of an account that administers the repository" in done.err
    listed = keepflow("project", "hooks")
    assert (listed.code, "failed" in listed.out) == (1, True)
    mended = keepflow("project", "hooks", "--again", "hooked", "-o", "json")
    assert mended.code == 0
    [hook] = mended.json["items"]
    assert (hook["state"], hook["url"]) == ("kept", f"{told[0]}/hooks/hooked")
    assert forge.urls() == [hook["url"]]
    [secret] = forge.secrets.values()
    body = json.dumps(payload("push", "gitea")).encode()
    for signed, status in ((secret.encode(), 202), (b"another", 401)):
        answer = requests.post(hook["url"], body, headers=headers("push", body, signed, forge="gitea"), timeout=10)
        assert answer.status_code == status, "what the forge signs with the secret it was given is believed"
    assert TOKEN not in done.out + done.err + listed.out + mended.out


def test_r75_apply_says_what_could_not_be_removed_and_what_to_do(
    keepflow: Keepflow, forge: ServedForge, file: Path
) -> None:
    assert "the webhook of hooked" in keepflow("apply", "--yes").err
    assert keepflow("project", "hooks", "--forget", "hooked").code == 0, "a wanted one is not let go of"
    file.write_text("projects: {}\n")
    forge.refuse = [(503, None)] * 50
    done = keepflow("apply", "--yes")
    assert "could not be removed" in done.err
    assert "remove the one to http://127.0.0.1" in done.err
    listed = keepflow("project", "hooks")
    assert (listed.code, "left" in listed.out) == (1, True)
    assert keepflow("project", "hooks", "--forget", "hooked").code == 0
    assert keepflow("project", "hooks", "-o", "json").json == {"items": []}
    assert keepflow("project", "hooks", "--again", "nobody").code != 0
