"""Secrets lent to a job on a real agent: given to the step that names them, gone afterwards, shown to nobody (R31)."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from keepflow import errors
from keepflow.agent import job_secrets
from keepflow.agent.environment import Places
from keepflow.agent.masks import masked, needles_of
from keepflow.agent.state import State
from keepflow.crypto import keys, sealing
from keepflow.executors.shell import end_marked
from keepflow.wire import messages
from keepflow.wire.messages import LentSecret, SecretUse, StepOrder, job_secret_place
from tests.agent.processes import Builder, Ran
from tests.agent.test_attempts import order

VALUE = 'c4nary hunter22\n"second" & line\n'
SPELT = ("c4nary", "hunter22", "YzRuYXJ5", "633440", "6334")


def lent(builder: Builder, fence: int, **values: str) -> tuple[LentSecret, ...]:
    """Seal values to the builder's key, as the master does."""
    key = State(builder.agent.state).key()
    return tuple(
        LentSecret(
            name=name,
            version=1,
            sealed=base64.b64encode(
                sealing.seal(value.encode(), key.opening.public, job_secret_place(fence, "shop", name, 1))
            ).decode(),
        )
        for name, value in values.items()
    )


def run(builder: Builder, steps: list[tuple[str, list[SecretUse]]], **values: str) -> Ran:
    """Run scripts, each with its secrets."""
    orders = tuple(
        StepOrder(kind="run", name=script, spec={"script": script}, secrets=tuple(uses)) for script, uses in steps
    )
    return builder.run(steps=orders, secrets=lent(builder, builder.last + 1, **values))


def told(ran: Ran) -> str:
    return ran.log + "".join(body.model_dump_json() for body in ran.reports)


def test_r31_a_secret_file_is_copied_into_the_checkout_masked_and_gone_after_its_step(builder: Builder) -> None:
    use = SecretUse(name="page", file="www/wiki/helpers/config.page")
    first = 'stat -c "%a %U" www/wiki/helpers/config.page; cat www/wiki/helpers/config.page; base64 www/wiki/helpers/*'
    ran = run(builder, [(first, [use]), ("ls www/wiki/helpers | wc -l", [])], page=VALUE)
    assert ran.end.state == "succeeded", ran.log
    assert "\n600 " in ran.log
    assert "[MASKED]" in ran.log
    assert "\n0\n" in ran.log, "the file stayed after its step"
    assert not [word for word in SPELT[:3] if word in told(ran)]


def test_r31_it_takes_the_place_of_a_file_of_the_repository_which_comes_back(builder: Builder) -> None:
    ran = run(
        builder, [("wc -c <hello.txt", [SecretUse(name="page", file="hello.txt")]), ("cat hello.txt", [])], page=VALUE
    )
    assert f"\n{len(VALUE)}\n" in ran.log
    assert "\nhello\n" in ran.log


def test_a_variable_is_there_for_the_step_that_names_it_and_for_no_other(builder: Builder) -> None:
    named = SecretUse(name="token", env="NPM_TOKEN")
    show = 'echo "${#NPM_TOKEN}-$NPM_TOKEN"'
    ran = run(builder, [(show, [named]), (show, [])], token="c4nary-token")
    assert "\n12-[MASKED]\n" in ran.log
    assert "\n0-\n" in ran.log
    assert "c4nary" not in told(ran)


def test_a_file_elsewhere_is_named_by_a_variable_and_gone_after_the_step(builder: Builder) -> None:
    use = SecretUse(name="deploy.key", file_env="KEY")
    script = 'stat -c %a "$KEY" "$(dirname "$KEY")"; cmp "$KEY" "$KEY" && wc -c <"$KEY"; echo "$KEY" >>"$KEEPFLOW_ENV"'
    script = script.replace('echo "$KEY"', 'echo "WAS=$KEY"')
    ran = run(builder, [(script, [use]), ('test ! -e "$WAS" && echo gone', [])], **{"deploy.key": VALUE})
    assert f"\n600\n700\n{len(VALUE)}\n" in ran.log
    assert "\ngone\n" in ran.log


def test_a_secret_that_did_not_come_or_does_not_open_refuses_the_step_and_names_it(builder: Builder) -> None:
    steps = (StepOrder(kind="run", name="x", spec={"script": "echo ran"}, secrets=(SecretUse(name="A", env="A"),)),)
    elsewhere = lent(builder, builder.last + 7, A="c4nary-token")  # sealed for another attempt
    for came in ((), elsewhere):
        ran = builder.run(steps=steps, secrets=came)
        assert (ran.end.state, ran.end.code) == ("failed", "config")
        assert "no value of 'A' came with this job" in ran.end.sentence
        assert "\nran\n" not in ran.log


def test_a_step_runs_without_an_optional_secret_that_did_not_come_and_says_so(builder: Builder) -> None:
    uses = (SecretUse(name="A", env="A", optional=True), SecretUse(name="B", file="b", optional=True))
    script = 'test -z "${A+set}" && test ! -e b && echo ran without'
    ran = builder.run(steps=(StepOrder(kind="run", name="x", spec={"script": script}, secrets=uses),), secrets=())
    assert ran.end.state == "succeeded", ran.log
    assert "\nran without\n" in ran.log
    assert "this run does not get 'A', 'B'; the step goes without" in ran.log


def test_no_link_of_a_repository_or_a_step_leads_a_secret_out(builder: Builder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    lead = f"ln -s {outside} out; ln -s {outside}/file inner; mkdir d"
    use = [SecretUse(name="A", file="out/secret")]
    ran = run(builder, [(lead, []), ("true", use)], A="c4nary-token")
    assert ran.end.state == "failed"
    assert "has no place in the checkout" in ran.end.sentence
    ran = run(builder, [(lead, []), ("cat inner | wc -c", [SecretUse(name="A", file="inner")])], A="c4nary-token")
    assert ran.end.state == "succeeded"
    assert list(outside.iterdir()) == []
    ran = run(builder, [(lead, []), ("true", [SecretUse(name="A", file="d")])], A="c4nary-token")
    assert "there is a directory of that name" in ran.end.sentence


def test_nothing_of_a_secret_is_left_on_the_host_and_no_process_shows_it(builder: Builder) -> None:
    look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'c4nary-toke[n]' || :"
    uses = [SecretUse(name="A", env="A"), SecretUse(name="A", file="a/b"), SecretUse(name="A", file_env="F")]
    ran = run(builder, [(look, uses)], A="c4nary-token")
    assert "\n0\n" in ran.log, "a value was in somebody's arguments"
    left = [
        path
        for path in builder.agent.root.rglob("*")
        if path.is_file() and not path.is_symlink() and b"c4nary-token" in path.read_bytes()
    ]
    assert left == []
    assert "c4nary" not in builder.agent.log


def test_an_order_that_was_taken_before_a_crash_is_masked_by_the_next_process() -> None:
    key = keys.generate()
    place = job_secret_place(7, "shop", "A", 1)
    sealed = base64.b64encode(sealing.seal(b"c4nary-token", key.opening.public, place)).decode()
    taken = order(7, secrets=(LentSecret(name="A", version=1, sealed=sealed),))
    again = messages.RunJob.model_validate_json(taken.model_dump_json())
    needles = needles_of(again, job_secrets.opened(again, key.opening).values())
    assert masked("x c4nary-token y", needles) == "x [MASKED] y"


def test_a_step_that_breaks_off_leaves_no_file(tmp_path: Path) -> None:
    places = _places(tmp_path)
    uses = [SecretUse(name="A", file="deep/down/a"), SecretUse(name="A", file_env="F")]

    def step() -> None:
        with job_secrets.given(uses, {"A": "c4nary-token"}, places, None, token="t") as variables:
            assert (tmp_path / "work/deep/down/a").read_text() == "c4nary-token"
            assert Path(variables["F"]).read_text() == "c4nary-token"
            raise KeyError

    with pytest.raises(KeyError):
        step()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_file_the_step_moved_or_removed_is_no_fault(tmp_path: Path) -> None:
    places = _places(tmp_path)
    (tmp_path / "work/a").write_text("old")
    with job_secrets.given([SecretUse(name="A", file="a")], {"A": "c4nary-token"}, places, None, token="t"):
        (tmp_path / "work/a").unlink()
    assert (tmp_path / "work/a").read_text() == "old"


@pytest.mark.parametrize("path", ["a/../../x", "..", "."])
def test_a_path_that_leaves_the_checkout_is_refused_on_the_host_too(tmp_path: Path, path: str) -> None:
    with (
        pytest.raises(errors.UsageError),
        job_secrets.given([SecretUse(name="A", file=path)], {"A": "c4nary-token"}, _places(tmp_path), None, token="t"),
    ):
        pass
    assert not [found for found in tmp_path.rglob("*") if found.is_file()]


def _places(root: Path) -> Places:
    made: dict[str, Any] = {}
    for name in ("work", "home", "scratch", "scratch/tmp"):
        (root / name).mkdir()
    made = {"workspace": root / "work", "home": root / "home", "temporary": root / "scratch/tmp"}
    return Places(output=root / "o", env=root / "e", docker_config=root / "d", engine=None, **made)


def test_r54_what_a_step_was_given_before_a_restart_is_taken_away_after_it(tmp_path: Path) -> None:
    places = _places(tmp_path)
    uses = [SecretUse(name="A", file="a"), SecretUse(name="A", file="b"), SecretUse(name="A", file_env="C")]
    (places.workspace / "a").write_text("of the repository")
    lives = []  # the first one never comes to leave it
    for again in (False, True):
        given = job_secrets.given(uses, {"A": "c4nary-token"}, places, None, token="t", again=again)
        lives.append(given)
        variables = given.__enter__()
        assert (places.workspace / "a").read_text() == Path(variables["C"]).read_text() == "c4nary-token"
    lives[-1].__exit__(None, None, None)
    assert (places.workspace / "a").read_text() == "of the repository"
    assert not (places.workspace / "b").exists()
    assert not Path(variables["C"]).exists()


def test_a_secret_file_whose_attempt_nobody_takes_up_is_gone_when_the_agent_has_started(builder: Builder) -> None:
    """The lane is closed then, and only the next job there would clean it."""
    use = SecretUse(name="page", file="www/wiki/helpers/left.page")
    script = "echo began; exec sleep 600"
    steps = (StepOrder(kind="run", name=script, spec={"script": script}, secrets=(use,)),)
    fence = builder.send(steps=steps, secrets=lent(builder, builder.last + 1, page=VALUE))
    builder.master.await_log(fence, b"\nbegan\n")
    attempt = builder.agent.state / "attempts" / str(fence) / "attempt.json"
    mark = json.loads(attempt.read_bytes())["mark"]
    try:
        builder.agent.kill()
        assert [path.read_text() for path in builder.agent.root.rglob("left.page")] == [VALUE]
        attempt.write_text("damaged")
        (attempt.parent.parent / "taken").write_bytes(b"")  # or it would be mended from there
        builder.agent.start()
        assert list(builder.agent.root.rglob("left.page")) == []
        assert "files of secrets that a job had are removed" in builder.agent.log
    finally:
        end_marked(mark, 0)
        shutil.rmtree(attempt.parent.with_name(f"unreadable-{fence}"), ignore_errors=True)
