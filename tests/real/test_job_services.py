"""Services beside the commands of a job, on a real engine: reached by name, waited for, kept apart, removed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.agent.processes import Builder
from tests.real.boxes import left, of, step
from tests.real.engines import Engine
from tests.real.test_job_containers import builder

__all__ = ["builder"]  # the fixture
pytestmark = [pytest.mark.real, pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")]
SERVE = "mkdir -p /www; echo up >/www/index.html; echo begins; sleep {wait}; httpd -f -p 80 -h /www"
#: Not busybox's own wget: linked statically, it cannot look up names.
GET = """python3 -c "
import http.client
asked = http.client.HTTPConnection('{0}', timeout=3)
asked.request('GET', '/')
print(asked.getresponse().read().decode(), end='')
"
"""


@pytest.fixture
def box(base_images: dict[str, str]) -> dict[str, Any]:
    """An image to run in."""
    return {"name": base_images["app"]}


@pytest.fixture
def web(base_images: dict[str, str]) -> dict[str, Any]:
    """A service that answers only after a while."""
    return {
        "image": base_images["busybox"],
        "command": ["sh", "-c", SERVE.format(wait="0.7")],
        "env": {"GREETING": "a = 'b' #c"},
        "ready": {"port": 80, "http": "/", "within": "20s"},
    }


def test_r25_services_are_reached_by_name_once_they_are_ready_and_are_gone_afterwards(
    builder: Builder, engine: Engine, box: dict[str, Any], web: dict[str, Any]
) -> None:
    """R25: also by a step on the machine itself, by the address it is told, for as long as that step runs."""
    ran = builder.run(GET.format("web"), where={"services": {"web": web}, "image": box})
    assert ran.end.state == "succeeded", ran.log
    assert ran.log.index("service web is ready") < ran.log.index("\nup\n")
    asked = {**web, "ready": {"command": ["wget", "-q", "-O", "-", "http://127.0.0.1/"]}}
    beside = builder.run(
        steps=(
            step("curl -sf http://$KEEPFLOW_SERVICE_WEB_2/", services={"web-2": asked}),
            step("! curl -sf -m 2 http://$KEEPFLOW_SERVICE_WEB_2/; echo gone"),
        )
    )
    assert beside.end.state == "succeeded", beside.log
    assert "\nup\n" in beside.log
    assert [left(engine, fence) for fence in (ran.fence, beside.fence)] == [[], []]


def test_a_service_that_never_gets_ready_fails_the_job_with_its_last_lines(
    builder: Builder, engine: Engine, box: dict[str, Any], web: dict[str, Any]
) -> None:
    late = {**web, "ready": {"port": 81, "within": "500ms"}}
    ran = builder.run("echo never", where={"services": {"web": late}, "image": box})
    assert (ran.end.state, ran.end.sentence) == ("failed", "service web was not ready within 0.5 s (port 81)")
    assert "\nweb | begins\n" in ran.log
    assert "never\n$" not in ran.log
    gone = {**web, "command": ["sh", "-c", "echo last words; exit 3"]}
    ran = builder.run("echo never", where={"services": {"web": gone}, "image": box})
    assert ran.end.sentence == "service web ended with exit code 3 before it was ready"
    assert "\nweb | last words\n" in ran.log
    assert left(engine, ran.fence) == []


def test_r33_services_of_two_runs_cannot_reach_each_other(
    builder: Builder, engine: Engine, box: dict[str, Any], web: dict[str, Any]
) -> None:
    """R33: by the same name each reaches its own; by the other's address nobody gets in."""
    where = {"services": {"web": web}, "image": box}
    fences = [builder.send(f"{GET.format('web')}sleep 600", where=where, run=number) for number in (1, 2)]

    def ask(fence: int, address: str) -> subprocess.CompletedProcess[str]:
        return engine.attempt("exec", of(engine, fence, "box")["Name"][1:], "sh", "-c", GET.format(address))

    try:
        for fence in fences:
            builder.master.await_log(fence, b"\nup\n")
        networks = [of(engine, fence, "web")["NetworkSettings"]["Networks"] for fence in fences]
        [mine], [theirs] = ([network["IPAddress"] for network in found.values()] for found in networks)
        for fence, own, other in ((fences[0], mine, theirs), (fences[1], theirs, mine)):
            assert ask(fence, own).stdout == "up\n"
            refused = ask(fence, other)
            assert (refused.returncode != 0, refused.stdout) == (True, "")
    finally:
        for fence in fences:
            builder.stop(fence, grace=0)
        ends = [builder.result(fence) for fence in fences]
    assert [ran.end.state for ran in ends] == ["cancelled", "cancelled"]
    assert [left(engine, fence) for fence in fences] == [[], []]


def test_t12_a_service_has_no_folder_no_privilege_and_no_door_to_the_host(
    builder: Builder, engine: Engine, box: dict[str, Any], web: dict[str, Any]
) -> None:
    fence = builder.send(f"{GET.format('web')}sleep 600", where={"services": {"web": web}, "image": box})
    builder.master.await_log(fence, b"\nup\n")
    told = of(engine, fence, "web")
    builder.stop(fence, grace=0)
    builder.result(fence)
    host = told["HostConfig"]
    assert (host["Privileged"], host["CapDrop"], host["SecurityOpt"]) == (False, ["ALL"], ["no-new-privileges"])
    assert not told["Mounts"]
    assert not host["PortBindings"]
    assert not host["Binds"]
    assert host["PidsLimit"] == 64
    assert "GREETING=a = 'b' #c" in told["Config"]["Env"]


def test_r25_the_image_just_built_is_a_service_of_the_next_step(
    builder: Builder, engine: Engine, box: dict[str, Any], base_images: dict[str, str]
) -> None:
    """R25: BUILT_IMAGE, in the job that built it and, told by the master, in a job behind it."""
    tag = f"shop:b{builder.last + 1}"
    dockerfile = (
        f"FROM {base_images['busybox']}\\nCMD mkdir /www && echo fresh >/www/index.html && httpd -f -p 80 -h /www\\n"
    )
    fresh = {"services": {"app": {"image": "BUILT_IMAGE", "ready": {"port": 80}}}, "image": box}
    try:
        ran = builder.run(
            steps=(
                step(f"printf '{dockerfile}' >Dockerfile; docker build -q -t {tag} ."),
                step(f"echo image={tag} >>$KEEPFLOW_OUTPUT"),
                step(GET.format("app"), **fresh),
            ),
            flow="build",
            images=("shop",),
        )
        assert ran.end.state == "succeeded", ran.log
        assert "\nfresh\n" in ran.log
        behind = builder.run(GET.format("app"), where=fresh, built=ran.end.images[0].image_id)
        assert "\nfresh\n" in behind.log
        nothing = builder.run("true", where=fresh)
        assert "no step before this one built an image" in nothing.end.sentence
    finally:
        engine.attempt("image", "rm", "--force", tag)


@pytest.fixture(autouse=True)
def _nothing_left(engine: Engine) -> Iterator[None]:
    """No test leaves a network behind."""
    before = engine.docker("network", "ls", "-q")
    yield
    assert engine.docker("network", "ls", "-q") == before
