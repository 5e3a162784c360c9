"""The master's file: read in full, and wrong wherever its parts do not fit together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keepflow.config.server_file import ServerFile, load_server
from keepflow.core.deploys import Overrides
from keepflow.core.flows import Strategy
from tests import hostile
from tests.config.problems import places, problems

KEEPWORK = """\
url: https://ci.example.org/
registries:
  main: {address: "registry.example.org:5000", ca_file: registry.crt, push: {username: push, password_file: r.password}}
groups: {testers: [ann], release-managers: [bo, cy]}
projects:
  keepwork:
    repo: https://github.com/example/keepwork.git
    git: {token_file: keepwork.token}
    forge: github
    hook_secret_file: /etc/keepflow/keepwork.hook
    images: [keepwork]
environments:
  keepwork/dev:  {agent: local,  service: keepwork-dev,  branches: [dev]}
  keepwork/test: {agent: local,  service: keepwork-test, branches: [master, main], args: [test], env: {V: 3.10}}
  keepwork/production:
    agent: prod-1
    service: keepwork
    args: [prod]
    strategy: stop-first
    stop_timeout: 1m
    promote_from: test
    max_age: 7d
    verified_by: [testers]
    approved_by: [release-managers]
    four_eyes: true
"""
BASE = Path("/srv/keepflow")


def load(text: str) -> ServerFile:
    return load_server(text, "keepflow.yml", BASE)


def refused(old: str, new: str) -> list[tuple[int, int, str]]:
    assert old in KEEPWORK
    return places(problems(load_server, KEEPWORK.replace(old, new), "keepflow.yml", BASE))


def test_the_example_of_the_design_is_read_in_full() -> None:
    server = load(KEEPWORK)
    assert server.url == "https://ci.example.org"
    assert server.groups == {"testers": ("ann",), "release-managers": ("bo", "cy")}
    registry, project = server.registries["main"], server.projects["keepwork"]
    assert registry.address == "registry.example.org:5000"
    assert registry.push is not None
    assert (registry.push.username, registry.push.password_file) == ("push", BASE / "r.password")
    assert (project.forge, project.images, project.flow_file) == ("github", ("keepwork",), ".keepflow.yml")
    production = server.environments["keepwork/production"]
    assert (production.promote_from, production.max_age, production.four_eyes) == ("test", 7 * 86400.0, True)
    assert production.overrides == Overrides(args=("prod",), stop_timeout=60.0, strategy=Strategy.STOP_FIRST)
    assert server.environments["keepwork/test"].overrides == Overrides(env={"V": "3.10"}, args=("test",))


def test_files_are_named_relative_to_the_file_that_names_them() -> None:
    project = load(KEEPWORK).projects["keepwork"]
    assert project.git.token_file == BASE / "keepwork.token"
    assert project.hook_secret_file == Path("/etc/keepflow/keepwork.hook")
    beside = load_server(KEEPWORK, "/somewhere/keepflow.yml").projects["keepwork"]
    assert beside.git.token_file == Path("/somewhere/keepwork.token")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("https://ci.example.org/", "ci.example.org", (1, 6, "bad-url")),
        ("https://ci.example.org/", "https://a:b@ci.example.org", (1, 6, "inline-secret")),
        ("https://ci.example.org/", "https://ci.example.org/?x=1", (1, 6, "bad-url")),
        ("url:", "ulr:", (1, 1, "unknown-key")),
        ('"registry.example.org:5000"', "https://registry.example.org", (3, 19, "bad-address")),
        ("push: {username: push, ", "push: {username: push, password: hunter2, ", (3, 94, "unknown-key")),
        ("[ann]", "[Ann Smith]", (4, 20, "bad-name")),
        ("https://github.com/example/keepwork.git", "https://x:token@github.com/a.git", (7, 11, "inline-secret")),
        ("https://github.com/example/keepwork.git", "--upload-pack=touch", (7, 11, "bad-remote")),
        ("{token_file: keepwork.token}", "{ssh_key_file: k}", (8, 10, "missing")),
        ("{token_file: keepwork.token}", "{token_file: t, ssh_key_file: k, known_hosts: h}", (8, 10, "conflict")),
        ("images: [keepwork]", "images: [registry.example.org/keepwork]", (11, 14, "bad-image")),
        ("images: [keepwork]", "flow_file: ../x.yml", (11, 16, "bad-path")),
        ("keepwork/dev:", "keepwrok/dev:", (13, 3, "unknown-project")),
        ("keepwork/dev:", "keepwork:", (13, 3, "bad-name")),
        ("branches: [dev]", "branches: refs/heads/dev", (13, 68, "bad-pattern")),
        ("branches: [dev]", "approved_by: testers", None),
        ("keepwork-test,", "keepwork-dev,", (14, 43, "duplicate-service")),
        ("args: [test]", "image: x", (14, 84, "unknown-key")),
        ("args: [test]", "four_eyes: true", (14, 84, "needs-promote-from")),
        ("promote_from: test", "promote_from: tset", (21, 19, "unknown-environment")),
        ("promote_from: test", "promote_from: production", (21, 19, "cycle")),
        ("promote_from: test", "promote_from: test\n    branches: [refs/heads/x]", (22, 16, "bad-pattern")),
        ("max_age: 7d", "max_age: 0s", (22, 14, "out-of-range")),
        ("max_age: 7d", "lapse_after: 0", (22, 18, "out-of-range")),
        ("verified_by: [testers]", "lapse_after: 3d", (25, 5, "needs-verified-by")),
        ("max_age: 7d", "freeze: [{from: Fri 16:00, to: Mon 08:00, tz: Europe/Berlim}]", (22, 51, "bad-time-zone")),
        ("max_age: 7d", "freeze: [{from: Fri 16:00, to: Mon 08:00}]", (22, 14, "missing")),
        ("max_age: 7d", "freeze: [{from: Friday, to: Mon 08:00, tz: UTC}]", (22, 14, "bad-freeze")),
        ("max_age: 7d", "freeze: [{from: Fri 16:00, to: Fri 16:00, tz: UTC}]", (22, 14, "bad-freeze")),
        ("max_age: 7d", "freeze: [{from: Fri 16:00, to: 2026-12-24, tz: UTC}]", (22, 14, "bad-freeze")),
        ("max_age: 7d", "freeze: [{from: 2027-01-02, to: 2026-12-24, tz: UTC}]", (22, 14, "bad-freeze")),
        ("args: [test]", "freeze: [{from: Fri 16:00, to: Mon 08:00, tz: UTC}]", (14, 84, "needs-promote-from")),
        ("[release-managers]", "[release-manager]", (24, 19, "unknown-group")),
        ("four_eyes: true", "four_eyes: yes", (25, 16, "wrong-type")),
        ("agent: prod-1", "agents: []", (15, 3, "missing")),
        ("agent: prod-1", "agents: [a, a]", (16, 17, "duplicate-host")),
        ("agent: prod-1", "agents: [a, b]\n    agent: a", (16, 5, "conflict")),
        ("agent: prod-1", "agents: [a, b]\n    max_unavailable: 0", (17, 22, "out-of-range")),
        ("agent: prod-1", "agents: [a, b]\n    on_failure: pray", (17, 17, "bad-value")),
        ("agent: prod-1", "agent: a\n    on_failure: stop", (17, 5, "needs-hosts")),
    ],
)
def test_a_mistake_is_told_at_its_place(old: str, new: str, problem: tuple[int, int, str] | None) -> None:
    expected = [problem] if problem else [(13, 18, "unreachable"), (13, 58, "needs-promote-from")]
    assert refused(old, new) == expected


def test_r66_a_status_needs_a_token_and_may_name_its_api() -> None:
    text = "projects:\n  shop:\n    repo: https://git.example.org/shop.git\n    status: {%s}\n"
    read = load(text % "token_file: t, api: https://git.example.org/api/v1/, private: true")
    found = read.projects["shop"].status
    assert found is not None
    assert (found.token_file, found.api, found.private) == (BASE / "t", "https://git.example.org/api/v1", True)
    wrong = text % "api: https://git.example.org"
    assert places(problems(load_server, wrong, "keepflow.yml", BASE)) == [(4, 13, "missing")]


def test_an_environment_names_its_host_or_its_hosts() -> None:
    text = KEEPWORK.replace("agent: prod-1", "agents: [prod-1, prod-2]\n    max_unavailable: 2\n    on_failure: stop")
    found = load(text).environments["keepwork/production"]
    assert (found.hosts, found.max_unavailable, found.on_failure) == (("prod-1", "prod-2"), 2, "stop")
    assert load(KEEPWORK).environments["keepwork/production"].hosts == ("prod-1",)


def test_a_service_on_one_of_several_hosts_belongs_to_one_environment() -> None:
    text = KEEPWORK.replace("agent: local,  service: keepwork-test", "agents: [far, local], service: keepwork-dev")
    assert [problem.code for problem in problems(load_server, text, "keepflow.yml", BASE)] == ["duplicate-service"]


def test_promotions_in_a_circle_reach_nothing() -> None:
    text = KEEPWORK.replace("branches: [master, main]", "promote_from: production")
    found = problems(load_server, text, "keepflow.yml", BASE)
    assert [(problem.line, problem.code) for problem in found] == [(14, "cycle"), (21, "cycle")]


def test_two_registries_have_two_addresses() -> None:
    text = KEEPWORK.replace("groups:", '  other: {address: "registry.example.org:5000"}\ngroups:', 1)
    assert places(problems(load_server, text, "keepflow.yml", BASE)) == [(4, 20, "duplicate-registry")]


def test_near_misses_are_offered() -> None:
    text = KEEPWORK.replace("promote_from: test", "promote_from: tset").replace("[testers]", "[tester]")
    messages = [problem.message for problem in problems(load_server, text, "keepflow.yml", BASE)]
    assert messages == [
        "environments.keepwork/production: no environment 'keepwork/tset' (did you mean 'test'?)",
        "environments.keepwork/production.verified_by: no group 'tester' under groups (did you mean 'testers'?)",
    ]


@pytest.mark.parametrize(
    "url", [url for url in hostile.URLS if url.startswith("-") or " " in url or not url.isprintable()]
)
def test_an_address_that_is_an_option_or_holds_control_characters_is_refused(url: str) -> None:
    text = KEEPWORK.replace("https://github.com/example/keepwork.git", json.dumps(url))
    assert problems(load_server, text, "keepflow.yml", BASE)


def test_an_empty_mapping_is_a_file_that_names_nothing() -> None:
    assert load("{}") == ServerFile()


@pytest.mark.parametrize("repo", ["/srv/git/shop.git, forge: github", "https://h/shop.git, forge: bare"])
def test_r11_a_hook_that_no_api_makes_is_told_at_its_place(repo: str) -> None:
    text = f"projects:\n  shop: {{repo: {repo}, hook: {{token_file: t}}}}\n"
    [(line, column, code)] = places(problems(load, text))
    assert (line, column, code) == (2, text.splitlines()[1].index("hook:") + 1, "no-hook-api")


def test_r11_how_a_hook_is_kept_is_read() -> None:
    hook = "{token_file: t, api: 'https://h/api/v1', private: true}"
    found = load(f"projects:\n  shop: {{repo: 'https://h/a/shop.git', forge: gitea, hook: {hook}}}\n")
    assert found.projects["shop"].hook is not None
    assert (found.projects["shop"].hook.api, found.projects["shop"].hook.private) == ("https://h/api/v1", True)
