"""restart-server.sh: the new one serves or the old one does, and nobody else's container is touched."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepflow.core import names
from keepflow.ports import Site, Traffic
from keepflow.proxies.nginx import Nginx
from tests.real.engines import Engine
from tests.real.hosts import Load, free_port, wait_until
from tests.real.parts import need
from tests.real.sample import set_marker
from tests.real.scripted import Checkout, get, version_of

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def built(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout with dev builds 1, 2 and 3, which differ in their marker."""
    need("flock", "ip", "ss", "curl")
    made = Checkout.make(tmp_path_factory.mktemp("restart") / "checkout", engine)
    for number in (1, 2, 3):
        set_marker(made.directory, f"build-{number}")
        made.build("dev", number)
    yield made
    made.clean()


@pytest.fixture
def server(built: Checkout) -> Iterator[Server]:
    """The dev server of that checkout, not started yet; its containers go away with the test."""
    yield Server(built)
    built.engine.remove_labelled(f"keepflow.service={built.service()}")


class Server:
    """What the script makes, as seen from outside."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        self.engine = checkout.engine
        self.service = checkout.service()

    def name(self, slot: str) -> str:
        """Return the exact name of a slot's container."""
        return names.container(self.service, "main", slot)

    def restart(self, number: int, code: int = 0, **more: str) -> str:
        """Run the script, expect an exit code, and return everything it said."""
        done = self.checkout.run("restart-server.sh", "dev", number=number, **{"HEALTH_PATH": "/healthz", **more})
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        return said

    def url(self, said: str) -> str:
        """Return the address the script told."""
        found = re.search(r"^\S+ serves \S+ at (http://\S+)$", said, re.MULTILINE)
        assert found is not None, said
        return found[1]

    def look(self, slot: str, form: str) -> str:
        """Inspect a slot's container; empty when there is none."""
        done = self.engine.attempt("container", "inspect", "--format", form, self.name(slot))
        return done.stdout.strip()

    def runs(self, slot: str) -> bool:
        """Say whether a slot's container runs."""
        return self.look(slot, "{{.State.Running}}") == "true"

    def identity(self, slot: str) -> str:
        """Return what changes when a container is replaced or restarted."""
        return self.look(slot, "{{.Id}} {{.State.StartedAt}} {{.State.Pid}} {{.RestartCount}}")

    def state(self) -> dict[str, bool]:
        """Return which slots exist, and whether they run."""
        return {slot: self.runs(slot) for slot in names.SLOTS if self.look(slot, "{{.Id}}")}


def test_the_first_start_serves_at_a_fixed_address_with_everything_named_and_labelled(server: Server) -> None:
    url = server.url(server.restart(1))
    assert version_of(url)["build"] == "1"
    assert version_of(url)["environment"] == "dev"
    labels = json.loads(server.look("blue", "{{json .Config.Labels}}"))
    assert (
        labels.items()
        >= {
            names.LABEL_SERVICE: server.service,
            names.LABEL_INSTANCE: "main",
            names.LABEL_SLOT: "blue",
            names.LABEL_OWNER: "script",
            "keepflow.build": "1",
        }.items()
    )
    assert server.look("blue", "{{.HostConfig.Init}} {{.HostConfig.RestartPolicy.Name}}") == "true unless-stopped"
    network = names.network(server.service, "main")
    subnet = server.engine.docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", network)
    assert re.fullmatch(r"10\.213\.\d+\.\d+/28", subnet)
    first = int(subnet.split("/")[0].rsplit(".", 1)[1])
    assert url == f"http://{subnet.rsplit('.', 1)[0]}.{first + 2}:8080"


def test_the_next_one_takes_the_other_slot_and_the_old_one_is_retired_with_grace(server: Server) -> None:
    server.restart(1)
    said = server.restart(2)
    assert version_of(server.url(said))["build"] == "2"
    assert server.state() == {"blue": False, "green": True}
    assert server.look("blue", "{{.State.ExitCode}} {{.HostConfig.RestartPolicy.Name}}") == "0 no"
    server.restart(3)
    assert server.state() == {"blue": True, "green": False}


def test_named_volumes_are_kept(server: Server) -> None:
    server.restart(1)
    server.restart(2)
    log = server.engine.docker("exec", server.name("green"), "cat", "/project/log/dev.log")
    starts = [line.split()[3] for line in log.splitlines() if " start " in line]
    assert starts[-2:] == ["1", "2"]


def test_a_request_under_way_is_finished_by_the_old_one(server: Server) -> None:
    url = server.url(server.restart(1))
    restart = server.checkout.start("restart-server.sh", "dev", number=2, HEALTH_PATH="/healthz")
    slow = get(f"{url}/slow?ms=2500")
    assert slow.status == 200
    assert slow.headers["x-build"] == "1"
    said, _ = restart.communicate(timeout=60)
    assert restart.returncode == 0, said


def test_a_running_sibling_whose_name_contains_ours_is_not_touched(server: Server) -> None:
    sibling = f"{server.name('blue')}-en"
    server.engine.docker(
        "run", "--detach", "--init", "--name", sibling, "--label", f"keepflow.service={server.service}-en",
        server.engine.base_image("busybox"), "sleep", "600",
    )  # fmt: skip
    try:
        before = server.engine.docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", sibling)
        server.restart(1)
        server.restart(2)
        server.restart(3)
        assert server.engine.docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", sibling) == before
    finally:
        server.engine.docker("rm", "--force", sibling)


def test_a_stopped_container_of_the_same_name_is_replaced(server: Server) -> None:
    server.engine.docker("run", "--name", server.name("blue"), server.engine.base_image("busybox"), "true")
    server.restart(1)
    assert server.runs("blue")


def test_a_missing_image_touches_nothing(server: Server) -> None:
    url = server.url(server.restart(1))
    before = server.identity("blue")
    said = server.restart(404, code=3)
    assert "b404" in said
    assert server.identity("blue") == before
    assert server.state() == {"blue": True}
    assert version_of(url)["build"] == "1"


def test_one_that_never_becomes_well_is_removed_and_the_old_one_never_notices(server: Server) -> None:
    url = server.url(server.restart(1))
    before = server.identity("blue")
    said = server.restart(2, code=4, HEALTH_PATH="/nowhere", HEALTH_SECONDS="1")
    assert "no good answer" in said
    assert "blue serves as before" in said
    assert server.identity("blue") == before
    assert server.state() == {"blue": True}
    assert version_of(url)["build"] == "1"


def test_one_that_ends_at_once_is_noticed_at_once_and_its_last_words_are_kept(server: Server) -> None:
    server.restart(1)
    before = server.identity("blue")
    broken = server.checkout.directory.parent / "broken"
    broken.mkdir(exist_ok=True)
    (broken / "Dockerfile").write_text(
        f'FROM {server.engine.base_image("busybox")}\nENTRYPOINT ["sh", "-c", "echo no database; exit 3"]\n'
    )
    server.engine.docker("build", "--tag", f"{server.checkout.name}/dev:b9", str(broken))
    began = time.monotonic()
    said = server.restart(9, code=4)
    assert time.monotonic() - began < 10, "the health deadline of 60 s must not be waited for"
    assert "| no database" in said
    assert "exit code 3" in said
    assert server.identity("blue") == before
    assert server.state() == {"blue": True}


def test_one_that_cannot_even_be_started_leaves_the_old_one(server: Server) -> None:
    server.restart(1)
    nobody = server.checkout.directory.parent / "nobody"
    nobody.mkdir(exist_ok=True)
    (nobody / "Dockerfile").write_text(f"FROM {server.checkout.name}/dev:b1\nUSER no-such-user\n")
    server.engine.docker("build", "--tag", f"{server.checkout.name}/dev:b8", str(nobody))
    assert "could not be started" in server.restart(8, code=4)
    assert server.state() == {"blue": True}


def test_a_service_that_an_agent_manages_is_refused(server: Server) -> None:
    other = f"{server.service}-of-the-agent"
    server.engine.docker(
        "create", "--name", other, "--label", f"keepflow.service={server.service}", "--label", "keepflow.instance=main",
        "--label", "keepflow.owner=agent:prod-1", server.engine.base_image("busybox"),
    )  # fmt: skip
    said = server.restart(1, code=7)
    assert "managed by prod-1" in said
    assert server.state() == {}


def test_two_at_once_take_turns(server: Server) -> None:
    server.restart(1)
    both = [
        server.checkout.start("restart-server.sh", "dev", number=number, HEALTH_PATH="/healthz") for number in (2, 3)
    ]
    said = [restart.communicate(timeout=90)[0] for restart in both]
    assert [restart.returncode for restart in both] == [0, 0], "\n".join(said)
    assert sorted(server.state().values()) == [False, True]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_broken_off_leaves_the_old_one_and_the_next_one_works(server: Server, number: signal.Signals) -> None:
    server.restart(1)
    before = server.identity("blue")
    restart = server.checkout.start("restart-server.sh", "dev", number=2, HEALTH_PATH="/nowhere", HEALTH_SECONDS="60")
    wait_until(lambda: server.runs("green"), 20, "the new container running")
    os.killpg(restart.pid, number)
    restart.communicate(timeout=20)
    assert server.identity("blue") == before
    if number == signal.SIGTERM:
        assert server.state() == {"blue": True}, "asked to end, the script tidies up"
    assert version_of(server.url(server.restart(3)))["build"] == "3"
    assert server.state() == {"blue": False, "green": True}


def test_with_flags_the_switch_loses_no_request(server: Server, tmp_path: Path) -> None:
    need("nginx")
    first = server.url(server.restart(1)).removeprefix("http://")
    green = re.sub(r"\.(\d+):", lambda match: f".{int(match[1]) + 1}:", first)
    tmp_path.chmod(0o755)  # nginx's workers must reach the flags, as they do below /var/lib
    flags = tmp_path / "sw"
    listen = f"127.0.0.1:{free_port()}"
    site = Site(
        service=server.service, instance="main", server_name="dev.example.org", listen=listen,
        blue=first, green=green, probe_token="p" * 24, bypass_token="b" * 24,
    )  # fmt: skip
    nginx = Nginx.own(flags, tmp_path / "nginx")
    try:
        nginx.ensure(site)
        server.restart(2, FLAGS=str(flags))
        with Load(f"http://{listen}/", tmp_path / "load", host_header="dev.example.org") as load:
            for build in (3, 1, 2):
                server.restart(build, FLAGS=str(flags))
            summary = load.finish()
        assert nginx.state(site) == Traffic("blue")
    finally:
        pid = tmp_path / "nginx/nginx.pid"
        os.kill(int(pid.read_text()), signal.SIGTERM)
        wait_until(lambda: not pid.exists(), 10, "the end of nginx")
    assert summary["failed"] == 0, summary
    assert summary["answered"] > 500
    assert [mark["mark"] for mark in summary["marks"]] == ["build-2", "build-3", "build-1"]
