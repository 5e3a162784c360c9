"""The verbs that speak with a master: what they print, where, and the exit codes."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest

from keepflow.core.retention import Rule
from keepflow.engine import clock, retention
from keepflow.engine import people as rules
from keepflow.store import people
from tests.cli.conftest import Keepflow
from tests.real.waiting import wait_until
from tests.web.story import BUILD_LOG, Story, promote, pushed

LISTS = (
    ("runs",),
    ("show", "3", "-P", "keepwork"),
    ("environments", "-P", "keepwork"),
    ("deploys", "production", "-P", "keepwork"),
    ("project", "ls"),
    ("agent", "ls"),
    ("user", "ls"),
    ("group", "ls"),
    ("role", "ls", "-P", "keepwork"),
    ("token", "ls"),
    ("receipt", "keepwork#2"),
    ("why", "keepwork#5"),
    ("why", "keepwork/production"),
    ("gate", "production", "-P", "keepwork"),
    ("acknowledge", "-P", "keepwork"),
    ("notices", "ls"),
    ("notices", "channels"),
)


@pytest.mark.parametrize("argv", LISTS)
def test_every_reading_verb_prints_a_table_and_json(argv: tuple[str, ...], keepflow: Keepflow) -> None:
    table, data = keepflow(*argv), keepflow(*argv, "-o", "json")
    assert (table.code, data.code) == (0, 0), table.err
    assert table.out.strip()
    assert data.json
    assert "\x1b" not in table.out, "no colours without a terminal"


def test_runs_are_listed_newest_first_with_state_and_subject(keepflow: Keepflow) -> None:
    lines = keepflow("runs", "-P", "keepwork", "-n", "2").out.splitlines()
    assert lines[0].split() == ["RUN", "STATE", "FLOW", "BRANCH", "COMMIT", "WHEN", "TOOK", "MESSAGE"]
    assert lines[1].split()[:2] == ["keepwork#6", "running"]
    said = keepflow("runs", "-P", "keepwork", "-n", "2")
    assert "more: --before" in said.err


def test_a_run_can_be_named_in_every_way_people_do(keepflow: Keepflow) -> None:
    for argv in (("keepwork#5",), ("5", "-P", "keepwork"), ("#5", "-P", "keepwork")):
        assert keepflow("show", *argv, "-o", "json").json["number"] == 5
    assert keepflow("show", "last", "-P", "keepwork", "-o", "json").json["number"] == 6
    several = keepflow("show", "5")
    assert (several.code, "--project" in several.err) == (2, True)


def test_show_says_what_failed_and_what_the_exit_code_means(keepflow: Keepflow) -> None:
    out = keepflow("show", "keepwork#5").out
    assert "failed exit 137 (it was killed, or the machine ran out of memory)  scripts/push-image.sh test" in out
    assert "skipped  deploy-test" in out


def test_logs_print_exactly_what_was_written(keepflow: Keepflow) -> None:
    said = keepflow("logs", "keepwork#5")
    assert said.out.startswith(f"\x1b[1m$ scripts/build-image.sh test\x1b[0m\n{BUILD_LOG}")
    assert said.err == ""
    assert keepflow("logs", "keepwork#5", "-n", "1").out == "layer 3: \x1b[31mKilled\x1b[0m\n"
    assert keepflow("logs", "keepwork#5", "deploy-test").out == ""
    assert keepflow("logs", "keepwork#5", "--grep", "Killed").out.endswith("layer 3: Killed\n")
    assert "keepwork#5 build:" in keepflow("logs", "test", "-P", "keepwork", "--grep", "Killed").out
    assert keepflow("logs", "test", "-P", "keepwork", "--grep", "Killed", "-n", "3").code == 2
    assert keepflow("logs", "keepwork#5", "nothing").code == 1


def test_following_a_finished_log_prints_it_once_and_ends(keepflow: Keepflow) -> None:
    assert keepflow("logs", "keepwork#5", "-f").out == keepflow("logs", "keepwork#5").out


def test_following_a_live_log_goes_on_until_the_run_ended(keepflow: Keepflow, told: tuple[str, Story]) -> None:
    _, story = told
    story.now = clock.now()
    number = story.push("test", story.commit("Follow me"), "Follow me")
    work = story.begin(number).open_step("build").say("one\n")

    def go_on() -> None:
        # The follower is there once it subscribed to the log's wakes.
        wait_until(lambda: f"log:{work.attempt.fence}" in story.master.wakes._topics, 20, "the follower")
        for text in ("two\n", "thr", "ee\n"):
            work.say(text)
        work.end(1)

    teller = threading.Thread(target=go_on)
    teller.start()
    said = keepflow("logs", f"keepwork#{number}", "-f")
    teller.join(20)
    assert (said.code, said.out) == (0, "one\ntwo\nthree\n")


def test_why_gives_the_sentence(keepflow: Keepflow) -> None:
    run = keepflow("why", "keepwork#5").out
    assert "push to master" in run
    assert "step 2 failed: exit code 137" in run
    assert "production serves keepwork#1, deployed by bo" in keepflow("why", "production", "-P", "keepwork").out
    assert keepflow("why", "nowhere", "-P", "keepwork").code == 1


def test_environments_name_digest_commit_run_person_and_agent(keepflow: Keepflow) -> None:
    lines = keepflow("environments", "-P", "keepwork").out.splitlines()
    production = next(line for line in lines if line.startswith("production"))
    for fact in ("serving", "a0a0a0a0a0a0", "keepwork#1", "bo", "prod-1 online", "Serve the login page over HTTP/2"):
        assert fact in production


# --- promote ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_the_difference_and_starts_nothing(keepflow: Keepflow) -> None:
    said = keepflow("promote", "--run", "3", "--to", "production", "-P", "keepwork", "--dry-run")
    assert said.code == 0
    assert "a0a0a0a0a0a0 → b0b0b0b0b0b0" in said.err
    assert "3 commits would go live" in said.err
    assert "✓ this digest was deployed to test and served there" in said.err
    assert len(keepflow("deploys", "production", "-P", "keepwork", "-o", "json").json["items"]) == 1


def test_without_a_terminal_a_promote_names_the_flag_and_starts_nothing(keepflow: Keepflow) -> None:
    said = keepflow("promote", "--run", "3", "--to", "production", "-P", "keepwork")
    assert (said.code, "--yes" in said.err) == (2, True)
    assert len(keepflow("deploys", "production", "-P", "keepwork", "-o", "json").json["items"]) == 1


def test_an_untested_release_is_refused_with_seven(keepflow: Keepflow) -> None:
    said = keepflow("promote", "--run", "4", "--to", "production", "-P", "keepwork", "--yes")
    assert (said.code, "[origin]" in said.err) == (7, True)
    assert keepflow("promote", "--run", "4", "--to", "production", "-P", "keepwork", "--dry-run").code == 7


@pytest.mark.parametrize(("outcome", "code"), [("done", 0), ("failed", 3)])
def test_waiting_for_a_promote_tells_the_phases_and_reflects_the_outcome(
    outcome: str, code: int, keepflow: Keepflow, told: tuple[str, Story]
) -> None:
    _, story = told
    story.now = clock.now()
    source = {"done": "3", "failed": "1"}[outcome]
    number = max(run["number"] for run in keepflow("runs", "-P", "keepwork", "-o", "json").json["items"]) + 1

    def carry_out() -> None:
        def started() -> bool:
            story.deploy(number, outcome, sentence="" if outcome == "done" else "it never got healthy")
            return True

        wait_until(started, 20, "the promote's start")

    agent = threading.Thread(target=carry_out)
    agent.start()
    back = ("--rollback",) if source == "1" else ()
    said = keepflow("promote", source, "--to", "production", "-P", "keepwork", "--yes", "-w", "--note", "tested", *back)
    agent.join(20)
    assert said.code == code, said.err
    assert "pulling" in said.err
    assert f"keepwork#{number} {outcome}" in said.err
    assert len(said.out.strip()) == 32, "stdout is the deployment's id"


def test_what_failed_there_is_under_quarantine_until_it_is_lifted_with_a_reason(keepflow: Keepflow) -> None:
    there = ("production", "-P", "keepwork")
    [one] = keepflow("quarantine", "ls", *there, "-o", "json").json["items"]
    said = keepflow("promote", "1", "--to", *there, "--yes", "--rollback")
    assert (said.code, "[quarantined]" in said.err) == (7, True)
    assert "it never got healthy" in keepflow("quarantine", "ls", *there).out
    assert keepflow("quarantine", "lift", "production", one["identity"], "-P", "keepwork").code == 2
    said = keepflow("quarantine", "lift", "production", one["identity"], "-P", "keepwork", "--why", "the disk was full")
    assert said.code == 0
    assert keepflow("quarantine", "ls", *there, "-o", "json").json["items"] == []
    assert "the disk was full" in keepflow("quarantine", "ls", *there, "--all").out
    assert keepflow("promote", "1", "--to", *there, "--dry-run", "--rollback").code == 0


def test_a_wait_that_times_out_is_six_and_the_promote_goes_on(keepflow: Keepflow, told: tuple[str, Story]) -> None:
    _, story = told
    if not _serves(keepflow, "b"):
        promote(story, "3")
    number = promote(story, "1", rollback=True)
    said = keepflow("promote", "3", "--to", "production", "-P", "keepwork", "--yes", "-w", "--timeout", "0.1")
    assert said.code == 6
    story.deploy(number + 1)


def _serves(keepflow: Keepflow, letter: str) -> bool:
    places = keepflow("environments", "-P", "keepwork", "-o", "json").json["items"]
    return bool(places[2]["serving"]["identity"] == pushed(letter).digest)


# --- people ----------------------------------------------------------------------------------------------------------


def test_people_groups_roles_and_tokens_from_the_command_line(keepflow: Keepflow, told: tuple[str, Story]) -> None:
    url, _ = told
    added = keepflow("user", "add", "dee", "--email", "dee@example.org")
    assert added.out.startswith(f"{url}/setup/kf_password_")
    assert "invited" in keepflow("user", "ls").out
    assert keepflow("group", "set", "night", "dee").code == 0
    assert "group night" in keepflow("role", "give", "developer", "--group", "night", "-P", "keepwork").out
    assert keepflow("role", "take", "--group", "night", "-P", "keepwork").code == 0
    token = keepflow("token", "make", "ci", "--scope", "read", "--user", "dee")
    assert token.out.startswith("kf_api_")
    number = keepflow("token", "ls", "-o", "json").json["items"][0]["id"]
    assert keepflow("token", "revoke", str(number)).code == 0
    assert keepflow("user", "disable", "dee").code == 0
    assert keepflow("user", "enable", "dee").code == 0
    assert keepflow("group", "rm", "night").code == 0
    assert keepflow("user", "add", "Bad Name").code == 2
    assert keepflow("agent", "token", "prod-7").out.startswith("kf_join_")


# --- which server ----------------------------------------------------------------------------------------------------


def _user_token(story: Story, name: str, scopes: list[str]) -> str:
    with story.master.database.read() as conn:
        user = people.user_by_name(conn, name)
    assert user is not None
    return story.write(lambda tx: rules.make_token(tx, user, "cli", scopes, None, name, clock.now()))


def test_r72_server_and_token_come_from_the_flag_then_the_environment_then_the_file(
    keepflow: Keepflow, told: tuple[str, Story], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, story = told
    for name in ("ann", "bo", "root"):
        (tmp_path / name).write_text(_user_token(story, name, ["read"]) + "\n")
    config = tmp_path / "config" / "keepflow"
    config.mkdir(parents=True)
    (config / "config.yml").write_text(f"current: a\ncontexts:\n  a: {{url: '{url}', token_file: ../../ann}}\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def projects() -> int:
        return len(keepflow("project", "ls", "-o", "json").json["items"])

    assert keepflow("user", "ls").code == 4, "ann is no admin"
    monkeypatch.setenv("KEEPFLOW_URL", url)
    monkeypatch.setenv("KEEPFLOW_TOKEN_FILE", str(tmp_path / "root"))
    assert projects() == 2
    said = keepflow("--token-file", str(tmp_path / "bo"), "project", "ls", "-o", "json")
    assert [found["name"] for found in said.json["items"]] == ["keepwork"]
    monkeypatch.setenv("KEEPFLOW_TOKEN", "kf_api_wrong")
    said = keepflow("project", "ls")
    assert (said.code, "token from KEEPFLOW_TOKEN" in said.err) == (4, True)


def test_r72_the_content_of_a_file_is_sent_and_not_its_path(
    keepflow: Keepflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yml").write_text("groups: {of-the-file: [ann]}\n")
    monkeypatch.chdir(tmp_path)
    planned = keepflow("apply", "-f", "mine.yml", "--dry-run", "-o", "json")
    assert planned.code == 0, planned.err
    assert "group of-the-file" in {line["what"] for line in planned.json["lines"] if line["action"] == "add"}
    assert keepflow("run", "dev", "-f", "mine.yml").code == 2, "a server reads the flow file of the commit"


@pytest.mark.parametrize(
    ("env", "code", "said"),
    [
        ({"KEEPFLOW_URL": "http://127.0.0.1:9"}, 4, "KEEPFLOW_TOKEN_FILE"),
        ({"KEEPFLOW_URL": "http://127.0.0.1:9", "KEEPFLOW_TOKEN": "x"}, 1, "cannot reach"),
        ({"KEEPFLOW_URL": "http://127.0.0.1:9", "KEEPFLOW_TOKEN_FILE": "/nowhere"}, 2, "/nowhere"),
        ({"KEEPFLOW_URL": "127.0.0.1:9", "KEEPFLOW_TOKEN": "x"}, 2, "write https://"),
        ({"KEEPFLOW_URL": "http://127.0.0.1:9", "KEEPFLOW_TOKEN": "x\ny"}, 4, "this is no token"),
        ({"KEEPFLOW_URL": "http://127.0.0.1:9", "KEEPFLOW_TOKEN": "€"}, 4, "this is no token"),
        ({"KEEPFLOW_HOME": "/nowhere"}, 2, "no master runs on /nowhere"),
    ],
)
def test_what_is_missing_is_said_with_the_way_to_give_it(
    env: dict[str, str], code: int, said: str, keepflow: Keepflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    found = keepflow("runs")
    assert (found.code, said in found.err) == (code, True), found.err
    assert "Traceback" not in found.err


def test_a_token_file_that_was_named_is_used_for_the_master_here_too(keepflow: Keepflow, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("kf_api_wrong\n")
    said = keepflow("--token-file", str(tmp_path / "token"), "runs")
    assert (said.code, str(tmp_path / "token") in said.err) == (4, True)


def test_the_token_never_shows(keepflow: Keepflow, home: Path) -> None:
    token = (home / "admin.token").read_text().strip()
    for argv in (("-v", "show", "keepwork#99"), ("-v", "user", "ls"), ("-v", "runs", "--state", "x" * 50)):
        said = keepflow(*argv)
        assert token not in said.out + said.err


def test_an_interrupt_while_following_only_detaches(keepflow: Keepflow, monkeypatch: pytest.MonkeyPatch) -> None:
    from keepflow.cli import watching

    def interrupted(_text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching, "write", interrupted)
    said = keepflow("logs", "keepwork#6", "-f")
    assert (said.code, "keepflow cancel keepwork#6" in said.err) == (130, True)
    assert keepflow("show", "keepwork#6", "-o", "json").json["state"] == "running"


def test_the_order_key_is_listed_and_replaced(keepflow: Keepflow) -> None:
    [before] = keepflow("keys", "ls", "-o", "json").json["items"]
    refused = keepflow("keys", "rotate")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    after = keepflow("keys", "rotate", "--yes", "-o", "json")
    assert [each["key"] for each in after.json["items"]][1:] == [before["key"]]
    assert "back up" in after.err
    table = keepflow("keys", "ls").out.splitlines()
    assert table[1].split()[1:3] == ["in", "use"]
    assert before["key"] in table[2]
    digest = str(pushed("b").digest)
    assert keepflow("verify", digest, "-P", "keepwork").code == 0
    assert keepflow("verify", digest, "-P", "keepwork", "--key", before["key"]).code == 0


def test_a_secret_comes_from_stdin_and_is_never_shown(keepflow: Keepflow, monkeypatch: pytest.MonkeyPatch) -> None:
    place = "keepwork/production"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"c4nary\n\n")))
    said = keepflow("secret", "set", place, "PASSWORD")
    assert (said.code, "PASSWORD version 1" in said.out + said.err) == (0, True), said
    listed = keepflow("secret", "ls", place)
    assert "PASSWORD" in listed.out
    assert "c4nary" not in listed.out + said.out + said.err
    assert keepflow("secret", "rm", place, "PASSWORD").code == 0
    for value, argv in (
        (b"\n", (place, "A")),
        (b"\xff", (place, "A")),
        (b"x", ("keepwork/", "A")),
        (b"x", (place, "1")),
        (b"x", (place, "A", "--branch", "dev")),
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(value)))
        assert keepflow("secret", "set", *argv).code == 2


def test_a_secret_of_a_project_says_which_jobs_get_it(keepflow: Keepflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"c4nary-1")))
    said = keepflow("secret", "set", "keepwork", "config.page", "--branch", "dev", "--flow", "dev")
    assert (said.code, "jobs get it: branches dev; flows dev" in said.out + said.err) == (0, True), said
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"c4nary-2")))
    assert "config.page version 2" in keepflow("secret", "set", "keepwork", "config.page").err
    listed = keepflow("secret", "ls", "keepwork", "-o", "json").json["items"]
    assert [(one["name"], one["version"], one["bound"]["branches"]) for one in listed] == [("config.page", 2, ["dev"])]
    assert "branches dev" in keepflow("secret", "ls", "keepwork").out
    assert keepflow("secret", "rm", "keepwork", "config.page").code == 0
    assert keepflow("secret", "rm", "keepwork", "config.page").code != 0


def test_r69_artifacts_are_listed_and_downloaded(keepflow: Keepflow, tmp_path: Path) -> None:
    listed = keepflow("artifacts", "keepwork#5")
    assert (listed.code, "PATH" in listed.out) == (0, True)
    refused = keepflow("artifacts", "keepwork#5", "dist/app", "--save", str(tmp_path / "app"))
    assert (refused.code, "keeps no 'dist/app'" in refused.err) == (1, True)
    assert not (tmp_path / "app").exists()
    told = keepflow("storage")
    assert (told.code, "artifacts" in told.out, "kept: everything" in told.out) == (0, True, True)


def test_r42_an_agent_is_drained_and_undrained(keepflow: Keepflow) -> None:
    assert "agent local gets no new script jobs" in keepflow("agent", "drain", "local").err
    listed = next(line for line in keepflow("agent", "ls").out.splitlines() if line.startswith("local"))
    assert "online, drained" in listed
    assert "drained by" in listed
    assert "gets script jobs again" in keepflow("agent", "undrain", "local").err
    assert "drained" not in keepflow("agent", "ls").out


def test_an_end_nobody_knows_is_settled_by_whoever_looked_unless_the_host_says_otherwise(
    keepflow: Keepflow, told: tuple[str, Story]
) -> None:
    _, story = told
    back = _serves(keepflow, "b")
    number = promote(story, "1" if back else "3", rollback=back, outcome="")
    story.deploy(number, "unknown", sentence="the engine did not answer", code="engine")
    settle = ("settle", "production", "-P", "keepwork", "--why", "curl said so", "--serves")
    said = keepflow(*settle, "old")
    assert (said.code, "--yes" in said.err) == (2, True)
    said = keepflow(*settle, "new", "--yes")
    assert (said.code, "[contradicted]" in said.err) == (7, True)
    said = keepflow(*settle, "old", "--yes")
    assert said.code == 0, said.err
    assert "reverted; settled by" in said.err
    assert keepflow(*settle, "old", "--yes").code == 1


def test_a_channel_that_is_not_there_is_said(keepflow: Keepflow) -> None:
    said = keepflow("notices", "test", "nobody")
    assert (said.code, "[no-channel]" in said.err) == (1, True)


def test_r77_what_goes_is_shown_before_it_goes(keepflow: Keepflow, told: tuple[str, Story]) -> None:
    _, story = told
    before = story.write(lambda tx: retention.rule(tx.conn))
    story.write(lambda tx: retention.put_rule(tx.conn, Rule(runs=1)))
    try:
        shown = keepflow("storage", "prune", "--dry-run")
        assert (shown.code, "would be let go of" in shown.out) == (0, True)
        listed = keepflow("storage", "prune", "--dry-run", "-o", "json").json
        assert (listed["applied"], listed["items"] != []) == (False, True)
        assert keepflow("storage", "prune", "--dry-run", "-o", "json").json == listed, "a look removes nothing"
        assert "are let go of" in keepflow("storage", "prune").out
        assert keepflow("storage", "prune", "--dry-run", "-o", "json").json["items"] == []
        assert "the newest 1 runs of each flow" in keepflow("storage").out
    finally:
        story.write(lambda tx: retention.put_rule(tx.conn, before))
