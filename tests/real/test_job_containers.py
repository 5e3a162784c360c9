"""Steps in containers on a real agent: what they find, what they cannot reach, and that nothing of them is left."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepflow.wire import messages
from tests.agent.conftest import running_master
from tests.agent.processes import AgentProcess, Builder
from tests.agent.test_cancelling import silent_server
from tests.real.boxes import left, of, step
from tests.real.engines import Engine
from tests.real.test_push_script import Registry, registry

__all__ = ["registry"]  # the fixture

pytestmark = [pytest.mark.real, pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")]
NOBODY = 65534
SECRET = "s3cret-value-of-a-test"


@pytest.fixture(scope="module")
def builder(engine: Engine) -> Iterator[Builder]:
    """An agent whose jobs run as `nobody` and may have containers, but for one flow."""
    place = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="kf-test-"))
    place.chmod(0o755)
    lines = (
        "capabilities: [run]",
        "jobs: 2",
        "jobs_user: nobody",
        f"docker: {{host: '{engine.host}'}}",
        "docker_for: [shop/build]",
        "containers: {for: [shop/dev, shop/build], images: ['**', '!taboo.example.org/**'], "
        "memory: 256MB, cpus: 1, pids: 64}",
    )
    with running_master(place) as (master, sha):
        agent = AgentProcess(master, place, file="".join(f"{line}\n" for line in lines))
        agent.start()
        try:
            yield Builder(master, agent, sha)
        finally:
            agent.close()
            shutil.rmtree(place)


@pytest.fixture
def image(base_images: dict[str, str]) -> dict[str, Any]:
    """Where a step runs that runs in busybox."""
    return {"image": {"name": base_images["busybox"]}}


def test_r34_a_job_runs_in_a_container_with_the_checkout_as_its_directory(
    builder: Builder, engine: Engine, image: dict[str, Any]
) -> None:
    """R34, R29, R32: its commands are shown, its files are the account's, and its outputs and variables are told."""
    ran = builder.run(
        "cat hello.txt; echo made >made; id -u",
        'test "$PWD" = "$WORKSPACE"; cat made; test ! -e /usr/bin/git; echo kept >/tmp/kept',
        'echo "WORD=told later" >>"$KEEPFLOW_ENV"; echo two | tee /dev/stderr',
        'cat /tmp/kept; echo "$WORD"; ls -ln made; test -z "$DOCKER_HOST$DOCKER_CONFIG"; cd "$HOME"; echo x >x',
        where=image,
    )
    assert ran.end.state == "succeeded", ran.log
    for words in (
        "\n$ cat hello.txt; echo made >made; id -u\nhello\n65534\n",
        "\nkept\ntold later\n",
        " 65534    65534 ",
    ):
        assert words in ran.log
    assert left(engine, ran.fence) == []


def test_a_step_may_have_an_image_of_its_own_and_the_checkout_elsewhere_in_it(
    builder: Builder, engine: Engine, base_images: dict[str, str]
) -> None:
    own = {"image": {"name": base_images["app"], "at": "/go/src/shop", "memory": "64MB"}}
    ran = builder.run(
        steps=(
            step("python3 -c 'print(6 * 7)' >answer; pwd; echo $WORKSPACE; touch /tmp/mark", **own),
            step("cat answer; test ! -e /go; command -v python3 || echo none"),
            step("test ! -e /tmp/mark", **own),
        ),
        where={"image": {"name": base_images["busybox"]}},
    )
    assert ran.end.state == "succeeded", ran.log
    assert "\n/go/src/shop\n/go/src/shop\n" in ran.log
    assert "\n42\nnone\n" in ran.log
    assert left(engine, ran.fence) == []


def test_t12_a_box_has_no_right_no_door_and_no_folder_beyond_its_job(
    builder: Builder, engine: Engine, image: dict[str, Any]
) -> None:
    """CVE-2026-58053: what is on the engine is compared with all that may be there."""
    fence = builder.send("echo inside; sleep 600", where=image, env={"TOKEN": SECRET}, mask=(SECRET,))
    builder.master.await_log(fence, b"\ninside\n")
    told = of(engine, fence, "box")
    host, scratch = told["HostConfig"], f"{builder.agent.state}-jobs/scratch/{fence}"
    builder.stop(fence)
    assert builder.result(fence).end.state == "cancelled"
    assert SECRET not in json.dumps(told)
    assert told["Config"]["User"] == f"{NOBODY}:{NOBODY}"
    expected: dict[str, Any] = {
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "PidMode": "",
        "UTSMode": "",
        "UsernsMode": "",
        "IpcMode": "private",
        "Memory": 256_000_000,
        "MemorySwap": 256_000_000,
        "NanoCpus": 10**9,
        "PidsLimit": 64,
        "PublishAllPorts": False,
        "ReadonlyRootfs": False,
        "AutoRemove": False,
        "Init": True,
    }
    assert {key: host[key] for key in expected} == expected
    for key in ("Binds", "CapAdd", "Devices", "DeviceRequests", "VolumesFrom", "Links", "ExtraHosts", "GroupAdd"):
        assert not host[key], key
    assert not host["PortBindings"]
    assert host["NetworkMode"] == f"{told['Name'][1:].rpartition('-job-box')[0]}-net"
    mounts = {(mount["Type"], mount["Source"], mount["RW"]) for mount in told["Mounts"]}
    work = {source for _, source, _ in mounts if source.endswith("/work")}
    assert mounts - {("bind", source, True) for source in work} == {
        ("bind", f"{scratch}/output", True),
        ("bind", f"{scratch}/env", True),
        ("bind", f"{scratch}/tmp", True),
        ("bind", f"{builder.agent.state}/attempts/{fence}/handed", False),
    }
    assert len(work) == 1


def test_a_secret_reaches_the_command_and_neither_inspect_nor_a_list_of_processes(
    builder: Builder, engine: Engine, image: dict[str, Any]
) -> None:
    fence = builder.send('echo "${#TOKEN} letters"; sleep 600', where=image, env={"TOKEN": SECRET})
    builder.master.await_log(fence, f"\n{len(SECRET)} letters\n".encode())
    argv = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    told = json.dumps(of(engine, fence, "box"))
    builder.stop(fence, grace=0)
    builder.result(fence)
    assert SECRET not in told
    assert not [line for line in argv if SECRET.encode() in line]
    assert not (builder.agent.state / "attempts" / str(fence) / "handed").exists()


def test_r57_a_stopped_job_ends_its_container_after_the_grace_it_was_given(
    builder: Builder, engine: Engine, image: dict[str, Any]
) -> None:
    fence = builder.send("trap 'echo says goodbye; exit 3' TERM; echo ready; sleep 600 & wait", where=image)
    builder.master.await_log(fence, b"\nready\n")
    builder.stop(fence, grace=5)
    ran = builder.result(fence)
    assert ran.end.state == "cancelled"
    assert "says goodbye" in ran.log
    assert left(engine, fence) == []


def test_r57_a_job_is_cancelled_while_its_image_is_pulled(builder: Builder, engine: Engine) -> None:
    with silent_server() as (url, came):
        registry = url.removeprefix("http://").partition("/")[0]
        fence = builder.send("echo never", where={"image": {"name": f"{registry}/never:1"}})
        assert came.wait(30), "nobody asked the registry"
        began = time.monotonic()
        builder.stop(fence)
        ran = builder.result(fence)
    assert time.monotonic() - began < 10
    assert (ran.end.state, ran.end.sentence) == ("cancelled", "cancelled by ann")
    assert f"── pulls {registry}/never:1\n" in ran.log
    assert left(engine, fence) == []


def test_r58_a_job_past_its_time_ends_with_its_container(
    builder: Builder, engine: Engine, image: dict[str, Any]
) -> None:
    ran = builder.run("sleep 600", where=image, timeout=2.0)
    assert (ran.end.state, ran.end.code) == ("failed", "timeout")
    assert left(engine, ran.fence) == []


def test_t35_a_fork_bomb_and_a_glutton_harm_only_their_own_job(builder: Builder, image: dict[str, Any]) -> None:
    bomb = builder.run("bomb() { bomb | bomb & }; bomb; sleep 1; sleep 1", where=image, timeout=20.0)
    glutton = builder.run("tail -c 900000000 /dev/zero | wc -c", where=image)
    assert "\n900000000\n" not in glutton.log
    assert "can't fork" in bomb.log
    assert builder.run("echo well", where=image).end.state == "succeeded"


def test_what_a_host_does_not_give_is_refused_with_the_line_to_write(builder: Builder, image: dict[str, Any]) -> None:
    fence = builder.send("true", where=image, flow="other")
    refused = builder.master.await_report(messages.JobRefused, fence)
    assert refused.code == "no-containers"
    assert "containers: {for: [shop/other]}" in refused.sentence
    more = builder.run("true", where={"image": {**image["image"], "memory": "1GB"}})
    assert "memory: 1000MB is more than the 256MB this host gives" in more.end.sentence
    assert builder.run("true", where={"image": {"name": "keepflow-test/none:1"}}).end.state == "failed"
    privileged = builder.send("true", where={"image": {**image["image"], "privileged": True}})
    assert builder.master.await_report(messages.JobRefused, privileged).code == "bad-job"


def test_a_box_cannot_open_the_engine(builder: Builder, engine: Engine, image: dict[str, Any]) -> None:
    """Neither by a path nor by the address that steps on the host are told."""
    path = engine.host.removeprefix("unix://")
    ran = builder.run(f"test ! -e {path}; test ! -e /var/run/docker.sock; echo closed", where=image, flow="build")
    assert ran.end.state == "succeeded", ran.log
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(path)


def test_an_image_is_pulled_when_it_is_missing_with_the_login_of_the_hosts_own_file(
    builder: Builder, engine: Engine, registry: Registry, base_images: dict[str, str], tmp_path: Path
) -> None:
    name = f"{registry.address}/keepflow-test-pulled:1"
    where = {"image": {"name": name}}
    engine.docker("tag", base_images["busybox"], name)
    push = {**engine.env, "DOCKER_CONFIG": registry.login(tmp_path / "docker")}
    subprocess.run(["docker", "push", "--quiet", name], env=push, check=True, capture_output=True, timeout=60)
    engine.docker("image", "rm", name)
    before, password = builder.agent.config.read_text(), tmp_path / "password"
    try:
        assert "could not be pulled" in builder.run("true", where=where).end.sentence
        password.touch(0o600)
        password.write_text("lent\n")
        login = f"{{username: push, password_file: {password}}}"
        builder.agent.config.write_text(f'{before}registries: {{"{registry.address}": {login}}}\n')
        first, second = (builder.run("cat hello.txt", where=where) for _ in range(2))
        assert [ran.end.state for ran in (first, second)] == ["succeeded", "succeeded"], first.log
        assert [f"── pulls {name}\n" in ran.log for ran in (first, second)] == [True, False]
    finally:
        builder.agent.config.write_text(before)
        engine.attempt("image", "rm", "--force", name)


@pytest.mark.parametrize("name", ["taboo.example.org/${KEEPFLOW_PROJECT}", "${KEEPFLOW_MATRIX_HOST}/x"])
def test_an_image_that_the_host_does_not_take_ends_the_job_before_it_is_pulled(builder: Builder, name: str) -> None:
    env = {"KEEPFLOW_MATRIX_HOST": "taboo.example.org"}
    ran = builder.run("echo ran", where={"image": {"name": name}}, env=env)
    assert (ran.end.state, ran.end.code) == ("failed", "image-refused")
    assert "containers: {images: [**, !taboo.example.org/**]}" in ran.end.sentence
    assert "pulls" not in ran.log
    assert "\nran\n" not in ran.log


@pytest.mark.parametrize("key", ["image", "services"])
def test_an_image_that_is_named_in_full_is_refused_with_the_job(
    builder: Builder, image: dict[str, Any], key: str
) -> None:
    taboo = "taboo.example.org/tools:1"
    where = {"image": {"name": taboo}} if key == "image" else {**image, "services": {"db": {"image": taboo}}}
    fence = builder.send("echo ran", where=where)
    refused = builder.master.await_report(messages.JobRefused, fence)
    assert refused.code == "image-refused"
    assert taboo in refused.sentence
