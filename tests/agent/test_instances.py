"""What is remembered of an instance: enough for a rollback, never more than the host allows."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.agent.env_file import read
from keepflow.agent.instances import History, Instance, Served, known_instances
from keepflow.core.flows import Container
from keepflow.errors import DeployFailed, Refused


def served(image: str, number: int, **env: str) -> Served:
    return Served(f"d{number}", "shop/test", "local", "shop", image, None, Container(env=env), number)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xy")), max_size=20), st.integers(1, 6))
def test_the_newest_comes_first_and_the_last_other_release_is_never_forgotten(
    story: list[tuple[str, str]], keep: int
) -> None:
    history = History()
    for number, (image, env) in enumerate(story):
        history = history.after(served(image, number, E=env), "blue", keep)
    if not story:
        assert history.identities == frozenset()
        return
    assert history.current is not None
    assert (history.current.image_id, history.current.container.env["E"]) == story[-1]
    distinct = list(dict.fromkeys(reversed(story)))
    remembered = [(one.image_id, one.container.env["E"]) for one in history.previous]
    assert remembered == distinct[1:][: max(keep - 1, 1)]


def test_an_instance_comes_back_as_it_was(tmp_path: Path) -> None:
    first = Instance(tmp_path, "shop", "main")
    front = first.front()
    history = History(served("b", 2), "green", (served("a", 1),), "c1", 5, 3.0)
    first.save_history(history)
    (again,) = known_instances(tmp_path)
    assert (again.service, again.instance) == ("shop", "main")
    assert again.front() == front
    assert again.history() == history
    assert len({front.probe_token, front.bypass_token}) == 2
    for path in tmp_path.rglob("*.json"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_an_instance_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    first = Instance(tmp_path, "shop", "main").claim()
    with pytest.raises(Refused):
        Instance(tmp_path, "shop", "main").claim()
    Instance(tmp_path, "shop", "other").claim().release()
    first.release()
    first.release()
    Instance(tmp_path, "shop", "main").claim().release()


def test_a_forgotten_instance_leaves_no_lock_and_who_waited_for_it_holds_a_real_one(tmp_path: Path) -> None:
    first = Instance(tmp_path, "shop", "a-111111").claim()
    first.front()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(Instance(tmp_path, "shop", "a-111111").claim, 10) for _ in range(8)]
        first.forget()
        first.release()
        for _ in waiting:
            done, rest = wait(waiting, 10, FIRST_COMPLETED)
            assert len(done) == 1, "one at a time holds it"
            waiting = list(rest)
            with pytest.raises(Refused):
                Instance(tmp_path, "shop", "a-111111").claim()
            done.pop().result().release()
    assert list(tmp_path.iterdir()) == []


def test_an_env_file_is_taken_literally(tmp_path: Path) -> None:
    path = tmp_path / "shop.env"
    path.write_text("# comment\n\nA=1\nQ='kept' \"as\" $IS\nEMPTY=\nURL=a=b=c\n")
    assert read(path) == {"A": "1", "Q": "'kept' \"as\" $IS", "EMPTY": "", "URL": "a=b=c"}


@pytest.mark.parametrize("line", ["no sign", "1A=x", "A B=x", "=x", "export A=1"])
def test_a_line_that_is_none_is_named_by_its_number_and_not_shown(tmp_path: Path, line: str) -> None:
    path = tmp_path / "shop.env"
    path.write_text(f"A=1\n{line}\n")
    with pytest.raises(DeployFailed, match=":2:") as failed:
        read(path)
    assert failed.value.code == "env-file"
    assert line not in failed.value.message


def test_a_missing_env_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DeployFailed, match="cannot be read"):
        read(tmp_path / "none.env")
