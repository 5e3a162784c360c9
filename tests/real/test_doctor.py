"""The doctor and a real nginx: what it tries beside the one that serves, and what it says of a host's own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from keepflow.agent.doctor import doors, front, host_file
from keepflow.agent.doctor.finding import Finding
from keepflow.agent.doctor.patient import Patient
from keepflow.agent.state import State
from keepflow.config.agent_file import Front
from keepflow.ports import Site
from keepflow.proxies.nginx import Nginx
from tests.real.parts import find, need
from tests.real.waiting import free_port

pytestmark = pytest.mark.real

SERVICES = {
    "shop": {
        "environment": "shop/production",
        "images": ["shop"],
        "front": {"server_name": "shop.example.org", "listen": "80"},
    }
}


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that nginx's workers may pass through."""
    need("nginx")
    with tempfile.TemporaryDirectory(prefix="kft-doctor-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def patient(place: Path, **nginx: str) -> Patient:
    """Return a host with one service behind this nginx."""
    config = place / "agent.yml"
    document = {"master": "https://ci.example.org", "capabilities": ["deploy"], "nginx": nginx, "services": SERVICES}
    config.write_text(json.dumps(document))
    file, found = host_file.read(config)
    assert file is not None, found
    return Patient(config, file, State(place / "lib" / "agent"))


def own(place: Path) -> Patient:
    return patient(place, mode="own", binary=find("nginx") or "nginx")


def at_port(place: Path, port: int) -> Patient:
    """Return a host whose own nginx is to listen there."""
    found = own(place)
    front = Front(server_name="shop.example.org", listen=f"127.0.0.1:{port}")
    shop = found.file.services["shop"].model_copy(update={"front": front})
    return replace(found, file=found.file.model_copy(update={"services": {"shop": shop}}))


def told(found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.state.value, finding.sentence) for finding in found]


def test_an_own_nginx_is_tried_and_leaves_nothing(place: Path) -> None:
    before = _nginx_processes()
    found = front.look(own(place))
    assert [state for state, _ in told(found)] == ["ok"], told(found)
    assert "obeys both flags" in found[0].sentence
    assert [path.name for path in place.iterdir()] == ["agent.yml"]
    assert _nginx_processes() - before == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="an nginx of another account than root has no workers of another one")
def test_workers_that_cannot_pass_are_found_out(place: Path) -> None:
    (place / "lib").mkdir(mode=0o700)
    found = front.look(own(place))
    assert [state for state, _ in told(found)] == ["failed"], told(found)
    assert "does not see" in found[0].sentence
    assert "r-x" in found[0].mend


def test_a_program_that_is_not_there_is_named(place: Path) -> None:
    (finding,) = front.look(patient(place, mode="own", binary="/nonexistent/nginx"))
    assert finding.state == "failed"
    assert "/nonexistent/nginx" in finding.sentence


@pytest.mark.parametrize(
    ("said", "word"), [("nginx version: nginx/1.14.2", "too old"), ("apache", "answer like nginx")]
)
def test_another_or_an_old_program_is_named(place: Path, said: str, word: str) -> None:
    program = place / "nginx"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    program.chmod(0o755)
    (finding,) = front.look(patient(place, mode="own", binary=str(program)))
    assert (finding.state, word in finding.sentence) == ("failed", True)


# --- the host's own nginx ---------------------------------------------------------------------------------------------


@pytest.fixture
def host(place: Path) -> Path:
    """A host's nginx tree, and a program built for it: `nginx -V` names that tree."""
    etc = place / "etc"
    for name in ("conf.d", "sites"):
        (etc / name).mkdir(parents=True)
    (etc / "nginx.conf").write_text(
        f"pid {place}/pid;\nerror_log {place}/error.log;\nuser www-data;\nevents {{}}\n"
        f"http {{\n  access_log off;\n  include {etc}/conf.d/*.conf;\n  include {etc}/sites/*;\n}}\n"
    )
    program = place / "nginx"
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = -V ]; then echo "configure arguments: --conf-path={etc}/nginx.conf" >&2; exit; fi\n'
        f'exec {find("nginx")} "$@"\n'
    )
    program.chmod(0o755)
    return place


def hosts(host: Path, include_dir: str = "conf.d") -> Patient:
    return patient(host, mode="host", include_dir=str(host / "etc" / include_dir), binary=str(host / "nginx"))


def test_a_sound_host_is_told_as_such(host: Path) -> None:
    found = told(front.look(hosts(host)))
    assert [state for state, _ in found if state == "failed"] == [], found
    assert found[0][0] == "ok"
    assert f"reads {host}/etc/conf.d/*.conf" in found[0][1]
    if os.geteuid() == 0:
        assert ("ok", "its workers (www-data) see both flags") in found


def test_somebody_elses_broken_file_is_named(host: Path) -> None:
    (host / "etc" / "sites" / "blog").write_text("server { listen 80; nonsense on; }\n")
    (finding,) = front.look(hosts(host))
    assert finding.state == "failed"
    assert f"{host}/etc/sites/blog:1" in finding.sentence
    assert "keepflow-nginx-" not in finding.sentence, "the copy it was tried in is nobody's file"


def test_an_include_folder_that_is_not_included_is_told(host: Path) -> None:
    (host / "etc" / "elsewhere").mkdir()
    (finding,) = front.look(hosts(host, "elsewhere"))
    assert finding.state == "failed"
    assert "does not read" in finding.sentence
    assert f"include {host}/etc/elsewhere/*.conf;" in finding.mend


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look with another account's eyes")
def test_a_place_its_workers_cannot_pass_is_told(host: Path) -> None:
    (host / "lib").mkdir(mode=0o700)
    assert ("failed", f"www-data, its workers' user, does not see flags in {host}/lib") in told(front.look(hosts(host)))


def test_a_site_that_the_running_nginx_does_not_answer_with_is_told(place: Path) -> None:
    front_root = place / "lib"
    front_root.mkdir()
    found = own(place)
    proxy = Nginx.own(front_root / "sw", front_root / "nginx", find("nginx") or "nginx")
    site = Site(
        "shop", "main", "shop.example.org", f"127.0.0.1:{free_port()}", "127.0.0.1:1", "127.0.0.1:2", "a" * 32, "b" * 32
    )
    proxy.ensure(site)
    port = int(site.listen.rpartition(":")[2])
    try:
        held = doors.holders_of(port)
        assert [(one.state.value, one.sentence) for one in doors.look(at_port(place, port))] == [
            ("ok", f"{site.listen} is held by keepflow's own nginx")
        ], held
        (elsewhere,) = doors.look(replace(at_port(place, port), state=State(place / "other" / "agent")))
        assert elsewhere.state == "failed", "another nginx, such as the host's, is not the one that is meant"
        assert "mode: host" in elsewhere.mend
        assert [state for state, _ in told(front.look(found))] == ["ok"]
        text = (front_root / "nginx" / "sites" / "kf-shop-main.conf").read_text()
        (front_root / "nginx" / "sites" / "kf-shop-main.conf").write_text(
            text.replace("generation ", "generation 0", 1)
        )
        assert [state for state, _ in told(front.look(found))] == ["ok", "failed"]
    finally:
        os.kill(int((front_root / "nginx" / "nginx.pid").read_text()), 15)


def _nginx_processes() -> set[str]:
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return {line.strip() for line in listed.splitlines() if "nginx: master" in line}


@pytest.mark.skipif(os.geteuid() != 0, reason="what is left of root only root can try")
def test_what_the_unit_leaves_of_root_is_enough_for_an_own_nginx(place: Path) -> None:
    need("setpriv")
    unit = (Path(__file__).parent.parent.parent / "agents" / "keepflow-agent.service").read_text()
    (left,) = re.findall(r"^CapabilityBoundingSet=(.+)$", unit, re.MULTILINE)
    bounding = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in left.split())])
    config = own(place).config
    doctor = (sys.executable, "-m", "keepflow.cli.main", "agent", "doctor", "--json", "--config", str(config))
    done = subprocess.run(
        ["setpriv", "--no-new-privs", "--bounding-set", bounding, *doctor, "--state", str(place / "lib" / "agent")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = {finding["subject"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert "obeys both flags" in found["nginx"]["sentence"], found["nginx"]
    assert found["ports"]["state"] == "ok", found["ports"]
