"""The agent's own file: read in full, and strict about everything that goes into another program's configuration."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from keepflow.config.agent_file import AgentFile, load_agent
from tests.config.problems import places, problems

KEEPWORK = """\
master: https://ci.example.org
capabilities: [deploy]
registries: {"registry.example.org:5000": {username: pull, password_file: pull.password, ca_file: registry.crt}}
networks: 10.213.0.0/16
nginx: {mode: host, include_dir: /etc/nginx/conf.d}
services:
  keepwork:
    environment: keepwork/production
    images: ["registry.example.org:5000/keepwork"]
    front: {server_name: keepwork.example.org, listen: 80}
    volumes: [log]
    env_file: /etc/keepflow/keepwork.env
    keep: 5
"""


def load(text: str) -> AgentFile:
    return load_agent(text, "/etc/keepflow/agent.yml")


def refused(text: str) -> list[tuple[int, int, str]]:
    return places(problems(load_agent, text, "/etc/keepflow/agent.yml"))


def test_the_example_of_the_design_is_read_in_full() -> None:
    agent = load(KEEPWORK)
    service = agent.services["keepwork"]
    assert (agent.master, agent.capabilities) == ("https://ci.example.org", ("deploy",))
    assert agent.registries["registry.example.org:5000"].password_file == Path("/etc/keepflow/pull.password")
    assert agent.networks == IPv4Network("10.213.0.0/16")
    assert (agent.nginx.mode, agent.nginx.include_dir) == ("host", Path("/etc/nginx/conf.d"))
    assert (service.environment, service.instance) == ("keepwork/production", "main")
    assert service.images == ("registry.example.org:5000/keepwork",)
    assert service.front is not None
    assert (service.front.server_name, service.front.listen, service.front.tls) == ("keepwork.example.org", "80", None)
    assert (service.volumes, service.keep) == (("log",), 5)
    assert (service.drain, service.watch.seconds, service.hot) == (30.0, 5.0, 600.0)


def test_what_is_not_said_has_a_careful_default() -> None:
    agent = load("master: http://127.0.0.1:8080\ncapabilities: run\n")
    assert (agent.jobs, agent.docker_for, agent.services) == (1, (), {})
    assert agent.docker.host == "unix:///var/run/docker.sock"
    assert (agent.nginx.mode, agent.address) == ("own", "container")


@pytest.mark.parametrize("master", ["http://127.0.0.1:7070", "http://[::1]:7070", "http://localhost"])
def test_an_unencrypted_master_is_taken_on_this_machine(master: str) -> None:
    assert load(f"master: {master}\ncapabilities: run\n").master == master


def test_an_unencrypted_master_elsewhere_is_taken_only_when_the_file_says_so() -> None:
    text = "master: http://ci.example.org\ncapabilities: run\n"
    assert refused(text) == [(1, 9, "insecure-http")]
    assert load(text + "insecure_http: true\n").master == "http://ci.example.org"


def test_a_watch_is_a_time_or_says_what_ends_it() -> None:
    text = KEEPWORK.replace("    keep: 5\n", "    keep: 5\n    watch: {for: 2m, errors: 0.5%, requests: 100}\n")
    assert text != KEEPWORK
    watch = load(text).services["keepwork"].watch
    assert (watch.seconds, watch.errors, watch.requests, watch.probes) == (120.0, 0.005, 100, 3)


def test_everything_may_be_written_in_full() -> None:
    agent = load(
        """\
master: https://[2001:db8::1]:8443
capabilities: [run, deploy]
labels: [gpu, debian-12]
jobs: 4
jobs_user: keepflow-jobs
docker: {host: "unix:///run/user/1000/docker.sock"}
docker_for: [keepwork/dev, keepwork/test]
address: loopback
nginx: {mode: own, binary: /usr/sbin/nginx}
services:
  web:
    environment: keepwork/dev
    instance: main
    images: [keepwork, localhost:5000/keepwork]
    front: {server_name: dev.localhost, listen: "[::1]:8900", tls: {certificate: tls/c.pem, key: /etc/ssl/k.pem}}
    drain: 2m
    watch: 0
    hot: 500ms
"""
    )
    front = agent.services["web"].front
    assert front is not None
    assert front.tls is not None
    assert front.tls.certificate == Path("/etc/keepflow/tls/c.pem")
    assert (agent.services["web"].drain, agent.services["web"].watch.seconds, agent.services["web"].hot) == (
        120.0,
        0.0,
        0.5,
    )


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("https://ci.example.org", "ftp://x", (1, 9, "bad-url")),
        ("https://ci.example.org", "http://ci.example.org", (1, 9, "insecure-http")),
        ("https://ci.example.org", "http://127.0.0.1.example.org", (1, 9, "insecure-http")),
        ("master:", "mastre:", None),
        ("[deploy]", "[deplyo]", (2, 16, "bad-value")),
        ("[deploy]", "[]", (2, 15, "empty")),
        ("[deploy]", "[run]", (6, 1, "needs-deploy")),
        ("username: pull, ", "", (3, 43, "missing")),
        ("10.213.0.0/16", "10.213.0.1/16", (4, 11, "bad-network")),
        ("10.213.0.0/16", "10.213.0.0/30", (4, 11, "bad-network")),
        ("10.213.0.0/16", "::/0", (4, 11, "bad-network")),
        ("mode: host", "mode: hots", (5, 15, "bad-value")),
        ("/etc/nginx/conf.d", "'/etc/nginx;x'", (5, 34, "bad-path")),
        ("/etc/nginx/conf.d", "/etc/../x", (5, 34, "bad-path")),
        ("  keepwork:", "  Keepwork:", (7, 3, "bad-name")),
        ("keepwork/production", "production", (8, 18, "bad-name")),
        ('["registry.example.org:5000/keepwork"]', "[]", (9, 13, "empty")),
        ('/keepwork"]', '/keepwork:latest"]', (9, 14, "bad-image")),
        ("    front: {server_name: keepwork.example.org, listen: 80}\n", "", (8, 5, "missing")),
        ("listen: 80", "listen: 0", (10, 56, "bad-listen")),
        ("listen: 80", "listen: 65536", (10, 56, "bad-listen")),
        ("listen: 80", "tls: {certificate: /a}", (10, 53, "missing")),
        ("[log]", "[../log]", (11, 15, "bad-name")),
        ("keep: 5", "keep: 0", (13, 11, "out-of-range")),
        ("keep: 5", "drain: 30", (13, 12, "bad-duration")),
        ("keep: 5", "privileged: true", (13, 5, "unknown-key")),
    ],
)
def test_a_mistake_is_told_at_its_place(old: str, new: str, problem: tuple[int, int, str] | None) -> None:
    assert old in KEEPWORK
    expected = [problem] if problem else [(1, 1, "missing"), (1, 1, "unknown-key")]
    assert refused(KEEPWORK.replace(old, new)) == expected


ENDINGS = ("", ";", "; }", "} server { listen 80", "\n", " #", "'", '"', "/x", ":80", " org", "\0", "\\", "..org", "-")
INJECTIONS = [
    *(f"a.org{ending}" for ending in ENDINGS if ending),
    *(
        "$host",
        "${IFS}",
        "{a}",
        "*.*.a.org",
        "a.*.org",
        "*",
        "~^a",
        "_",
        "",
        ".a.org",
        "-a.org",
        "A.org",
        "a_b.org",
        "ä.org",
    ),
    *("a" * 64 + ".org", "a." * 127 + "org", "include /etc/passwd"),
]


@pytest.mark.parametrize("name", INJECTIONS)
def test_a_server_name_is_a_host_name_and_nothing_that_nginx_could_read_otherwise(name: str) -> None:
    assert refused(KEEPWORK.replace("keepwork.example.org,", f"{json.dumps(name)},")) == [(10, 26, "bad-host")]


LISTENS = (
    "80;",
    "80 default_server",
    "a:80",
    "1.2.3:80",
    "::1:80",
    "[::1]",
    ":80",
    "unix:/x",
    "80\n",
    "08",
    "+80",
    "$p",
)


@pytest.mark.parametrize("listen", [*LISTENS, "1.2.3.4:80 ssl", ""])
def test_where_it_listens_is_a_port_or_an_address_and_a_port(listen: str) -> None:
    assert refused(KEEPWORK.replace("listen: 80", f"listen: {json.dumps(listen)}")) == [(10, 56, "bad-listen")]


@pytest.mark.parametrize("path", ["/a;b", "/a b", "/a\nb", "/a{b}", '/a"b', "/a$b", "/a/../b", "/a'b", "/a\\b"])
def test_a_path_for_nginx_holds_nothing_that_ends_a_directive(path: str) -> None:
    tls = f"tls: {{certificate: {json.dumps(path)}, key: /k}}"
    assert refused(KEEPWORK.replace("listen: 80", tls)) == [(10, 67, "bad-path")]


@pytest.mark.parametrize("host", ["tcp://0.0.0.0:2375", "unix://x", "", "unix:///x\n", "/var/run/docker.sock"])
def test_the_engine_is_reached_by_a_unix_socket_only(host: str) -> None:
    text = f"master: https://a\ncapabilities: run\ndocker: {{host: {json.dumps(host)}}}\n"
    assert refused(text) == [(3, 16, "bad-address")]


def test_two_services_do_not_share_a_front_door() -> None:
    second = """\
  other:
    environment: keepwork/other
    images: [x]
    front: {server_name: keepwork.example.org}
"""
    assert refused(KEEPWORK + second) == [(17, 12, "duplicate-front")]
    assert load(KEEPWORK + second.replace("keepwork.example.org", "other.example.org")).services.keys() == {
        "keepwork",
        "other",
    }


def test_without_nginx_a_service_needs_no_front() -> None:
    text = KEEPWORK.replace("mode: host", "mode: none").replace(
        "    front: {server_name: keepwork.example.org, listen: 80}\n", ""
    )
    assert load(text).services["keepwork"].front is None


def test_a_host_names_the_images_of_jobs_and_a_pattern_that_never_fits_is_told() -> None:
    head = "master: https://h\ncapabilities: run\n"
    assert load(head + "containers: {for: '*'}\n").containers.images is None
    assert load(head + "containers: {for: '*', images: node}\n").containers.images == ("node",)
    assert refused(head + "containers: {for: '*', images: [node, 'a b']}\n") == [(3, 39, "bad-pattern")]
    assert refused(head + "containers: {for: '*', images: []}\n") == [(3, 32, "empty")]
