"""`keepflow registry` with the real docker-registry, nginx and engine: TLS, two users, detached, idempotent."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from keepflow import errors
from keepflow.crypto import certificates
from keepflow.tools.registry import Registry
from tests.real.engines import Engine
from tests.real.leftovers import alive
from tests.real.parts import need
from tests.real.waiting import free_port

pytestmark = pytest.mark.real

OCI = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class Served:
    """A home directory whose registry this test starts and stops by the command line."""

    home: Path
    port: int

    def cli(self, verb: str, *options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "keepflow.cli.main", "registry", verb, "--home", str(self.home), *options],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            start_new_session=True,
            env=env,
        )

    def up(self, *options: str) -> dict[str, str]:
        done = self.cli("up", "--output", "json", *options)
        assert done.returncode == 0, done.stderr
        told: dict[str, str] = json.loads(done.stdout)
        return told

    def first_up(self, *options: str) -> dict[str, str]:
        return self.up("--listen", f"127.0.0.1:{self.port}", *options)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def login(self, role: str) -> tuple[str, str]:
        return role, (self.home / f"registry.{role}.password").read_text().strip()

    def client(self, role: str) -> Registry:
        return Registry(self.address, *self.login(role), ca_file=self.home / "registry-ca.crt")

    def ask(self, role: str | None, method: str, path: str, **more: object) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                method,
                path if path.startswith("https:") else f"https://{self.address}{path}",
                auth=self.login(role) if role else None,
                verify=str(self.home / "registry-ca.crt"),
                timeout=30,
                **more,  # type: ignore[arg-type]  # passed through to requests
            )

    def push(self, name: str, tag: str, layer: object = b"layer") -> str:
        """Push one image of one layer as the push user, and return its digest."""
        blobs = []
        for data in (b"{}", layer):
            started = self.ask("push", "POST", f"/v2/{name}/blobs/uploads/")
            assert started.status_code == 202
            assert started.headers["Location"].startswith(f"https://{self.address}/")
            sent = self.ask("push", "PATCH", started.headers["Location"], data=data)
            assert sent.status_code == 202
            size = int(sent.headers["Range"].partition("-")[2]) + 1
            digest = _digest(data)
            closed = self.ask("push", "PUT", sent.headers["Location"], params={"digest": digest})
            assert closed.status_code == 201, closed.text
            blobs.append({"mediaType": "application/octet-stream", "digest": digest, "size": size})
        manifest = {"schemaVersion": 2, "mediaType": OCI, "config": blobs[0], "layers": blobs[1:]}
        body = json.dumps(manifest).encode()
        put = self.ask("push", "PUT", f"/v2/{name}/manifests/{tag}", data=body, headers={"Content-Type": OCI})
        assert put.status_code == 201, put.text
        return _digest(body)

    def pids(self) -> dict[str, int]:
        return {
            name: int((self.home / "registry" / f"{name}.pid").read_text().split()[0]) for name in ("registry", "nginx")
        }


def _digest(data: object) -> str:
    pieces = [data] if isinstance(data, bytes) else data
    total = hashlib.sha256()
    for piece in pieces:  # type: ignore[attr-defined]  # a Big
        total.update(piece)
    return f"sha256:{total.hexdigest()}"


class Big:
    """A layer of many megabytes, sent in chunks without a stated length; it can be read again."""

    def __init__(self, megabytes: int) -> None:
        self._megabytes = megabytes

    def __iter__(self) -> Iterator[bytes]:
        return (bytes([n % 256]) * 1_048_576 for n in range(self._megabytes))


def make_home() -> Path:
    """A short path: the socket's name must fit the kernel's limit."""
    return Path(tempfile.mkdtemp(prefix="kfr-", dir="/tmp"))


@pytest.fixture
def served() -> Iterator[Served]:
    """A home where nothing runs yet."""
    need("docker-registry", "nginx")
    made = Served(make_home(), free_port())
    yield made
    made.cli("down")
    shutil.rmtree(made.home)


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    """A registry that runs, for tests that do not stop or change it."""
    need("docker-registry", "nginx")
    made = Served(make_home(), free_port())
    made.first_up()
    yield made
    made.cli("down")
    shutil.rmtree(made.home)


def test_it_tells_addresses_and_files_but_never_a_password(served: Served) -> None:
    done = served.cli("up", "--listen", served.address, "--name", "registry.example.org", "--output", "json")
    told = json.loads(done.stdout)
    assert told["address"] == f"registry.example.org:{served.port}"
    assert (told["push_user"], told["pull_user"]) == ("push", "pull")
    assert Path(told["ca_file"]).is_file()
    for role in ("push", "pull"):
        password_file = Path(told[f"{role}_password_file"])
        assert password_file.stat().st_mode & 0o777 == 0o600
        assert password_file.read_text().strip() not in done.stdout + done.stderr
    assert f"/etc/docker/certs.d/{told['address']}/ca.crt" in done.stderr
    plain = served.cli("up")
    assert told["ca_file"] in plain.stdout
    assert served.login("push")[1] not in plain.stdout + plain.stderr


def test_the_push_user_pushes_and_the_digest_is_read_back_by_head(running: Served) -> None:
    digest = running.push("app", "b1")
    for role in ("push", "pull"):
        assert running.client(role).digest("app", "b1") == digest
        assert running.client(role).manifest("app", digest).digest == digest
    assert running.client("pull").digest("app", "b2") is None
    assert not running.client("pull").exists("nothing", "b1")


def test_the_pull_user_may_read_and_do_nothing_else(running: Served) -> None:
    digest = running.push("readonly", "b1")
    for method, path in (
        ("POST", "/v2/readonly/blobs/uploads/"),
        ("POST", f"/v2/readonly/blobs/uploads/?mount={digest}&from=app"),
        ("PATCH", "/v2/readonly/blobs/uploads/x"),
        ("PUT", "/v2/readonly/manifests/b2"),
        ("PUT", "/v2/readonly/blobs/uploads/x"),
        ("DELETE", f"/v2/readonly/manifests/{digest}"),
        ("DELETE", f"/v2/readonly/blobs/{digest}"),
    ):
        assert running.ask("pull", method, path).status_code in (401, 403), (method, path)
        assert running.ask(None, method, path).status_code == 401, (method, path)
    assert running.ask("pull", "GET", "/v2/readonly/manifests/b1", headers={"Accept": OCI}).status_code == 200
    assert running.client("pull").digest("readonly", "b1") == digest


def test_what_a_login_may_do_is_tried_without_leaving_anything(running: Served) -> None:
    running.push("tried", "b1")
    assert running.client("push").may_push("tried")
    assert not running.client("pull").may_push("tried")
    (uploads,) = (running.home / "registry" / "data").glob("**/repositories/tried/_uploads")
    assert list(uploads.glob("*/startedat")) == [], "the upload that was begun was called off"


def test_nobody_reads_without_a_login_and_nothing_else_is_served(running: Served) -> None:
    for path in ("/v2/", "/v2/_catalog", "/v2/app/manifests/b1", "/v2/app/tags/list"):
        assert running.ask(None, "GET", path).status_code == 401
    for path in ("/", "/debug/vars", "/debug/health", "/metrics", "/v2", "/v1/"):
        assert running.ask("push", "GET", path, allow_redirects=False).status_code in (301, 404), path


def test_a_wrong_password_is_unauthorised_and_a_foreign_authority_a_certificate_error(running: Served) -> None:
    authority = running.home / "registry-ca.crt"
    for user, password in (("pull", "wrong"), ("push", running.login("pull")[1]), ("nobody", "x")):
        with pytest.raises(errors.RegistryError) as caught:
            Registry(running.address, user, password, ca_file=authority).ping()
        assert caught.value.code == "unauthorised"
    with pytest.raises(errors.RegistryError, match="ca_file") as caught:
        Registry(running.address, *running.login("pull")).ping()
    assert caught.value.code == "certificate"
    Registry(f"localhost:{running.port}", *running.login("pull"), ca_file=authority).ping()


def test_a_big_layer_in_chunks_goes_straight_through(running: Served) -> None:
    digest = running.push("big", "b1", Big(60))
    assert running.client("pull").digest("big", "b1") == digest
    buffered = [path for path in (running.home / "registry").glob("tmp-*/**/*") if path.is_file()]
    assert buffered == []


def test_the_registry_itself_has_no_port(running: Served) -> None:
    pid = running.pids()["registry"]
    sockets = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}  # noqa: PTH115 - a socket's link has no path
    inodes = {text.removeprefix("socket:[").removesuffix("]") for text in sockets if text.startswith("socket:")}
    tcp = [line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
    assert [row for row in tcp if row[9] in inodes] == []
    assert (running.home / "registry").stat().st_mode & 0o777 == 0o700


def test_a_second_up_is_harmless_and_needs_no_options(served: Served) -> None:
    served.first_up("--name", "registry.example.org")
    pids = served.pids()
    files = {path: path.read_bytes() for path in served.home.rglob("*") if path.is_file() and "/data/" not in str(path)}
    told = served.up()
    assert told["address"] == f"registry.example.org:{served.port}"
    assert served.pids() == pids
    assert {path: path.read_bytes() for path in files} == files


def test_ups_at_the_same_moment_start_one_registry(served: Served) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: served.cli("up", "--listen", served.address), range(4)))
    assert [one.returncode for one in done] == [0, 0, 0, 0], [one.stderr for one in done]
    masters = [path for path in Path("/proc").glob("[0-9]*/cmdline") if _mentions(path, str(served.home))]
    assert len([path for path in masters if b"docker-registry" in path.read_bytes()]) == 1
    assert len([path for path in masters if b"nginx" in path.read_bytes()]) == 1


def _mentions(path: Path, text: str) -> bool:
    try:
        return text.encode() in path.read_bytes()
    except OSError:
        return False


def test_it_outlives_the_command_that_started_it(served: Served) -> None:
    served.first_up()
    for pid in served.pids().values():
        assert os.getsid(pid) == pid
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
        opened = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").glob("[012]")]  # noqa: PTH115 - may be a pipe
        assert not any(link.startswith("pipe:") for link in opened)
    served.client("pull").ping()


def test_status_says_what_runs_and_down_stops_it(served: Served) -> None:
    never = served.cli("status")
    assert never.returncode == 1
    assert "no registry was ever started" in never.stderr
    served.first_up()
    digest = served.push("app", "b1")
    passwords = served.login("push"), served.login("pull")
    good = served.cli("status", "--output", "json")
    assert good.returncode == 0, good.stdout
    assert json.loads(good.stdout)["answers"] == "yes"
    pids = served.pids()
    assert served.cli("down").returncode == 0
    assert not any(alive(pid) for pid in pids.values())
    bad = served.cli("status", "--output", "json")
    assert bad.returncode == 1
    assert json.loads(bad.stdout)["nginx"] == "down"
    with socket.socket() as asking:
        assert asking.connect_ex(("127.0.0.1", served.port)) != 0
    again = served.cli("down")
    assert (again.returncode, "was not running" in again.stderr) == (0, True)
    served.up()
    assert (served.login("push"), served.login("pull")) == passwords
    assert served.client("pull").digest("app", "b1") == digest


def test_killed_processes_come_back_on_the_same_port_with_the_same_images(served: Served) -> None:
    served.first_up()
    digest = served.push("app", "b1")
    for victims in (("registry",), ("nginx",), ("registry", "nginx")):
        before = served.pids()
        for name in victims:
            os.kill(before[name], signal.SIGKILL)
        served.up()
        assert served.client("pull").digest("app", "b1") == digest
        assert [name for name in before if served.pids()[name] != before[name]] == sorted(victims, reverse=True)


def test_a_renewed_certificate_is_served_without_a_restart(served: Served) -> None:
    served.first_up()
    pids = served.pids()
    old = datetime.now(UTC) - timedelta(days=690)
    (served.home / "registry.crt").unlink()
    hosts = ("127.0.0.1", "localhost", "::1")
    ending = certificates.ensure(served.home, "registry", hosts, old).valid_until
    assert ending - datetime.now(UTC) < timedelta(days=60)
    authority = (served.home / "registry-ca.crt").read_bytes()
    told = served.up()
    assert told["certificate_until"] > f"{ending:%Y-%m-%d}"
    assert (served.home / "registry-ca.crt").read_bytes() == authority
    assert served.pids() == pids
    served.client("pull").ping()


def test_a_new_name_gets_into_the_certificate(served: Served) -> None:
    served.first_up()
    served.up("--name", "127.0.0.77")
    Registry(f"127.0.0.77:{served.port}", ca_file=served.home / "registry-ca.crt", username="x", password="y")
    with pytest.raises(
        errors.RegistryError
    ) as caught:  # only 127.0.0.1 listens: refused, which is no certificate error
        Registry(f"127.0.0.77:{served.port}", ca_file=served.home / "registry-ca.crt").ping()
    assert caught.value.code == "unreachable"
    served.up("--listen", f"0.0.0.0:{served.port}")
    Registry(f"127.0.0.77:{served.port}", *served.login("pull"), ca_file=served.home / "registry-ca.crt").ping()


def test_a_port_in_use_is_told_in_the_words_of_nginx(served: Served) -> None:
    with socket.create_server(("127.0.0.1", served.port)):
        done = served.cli("up", "--listen", served.address)
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
    served.up()
    served.client("pull").ping()


def test_a_missing_program_is_named_with_how_to_get_it(served: Served, tmp_path: Path) -> None:
    done = served.cli("up", env={"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert "docker-registry (on Debian and Ubuntu: apt install docker-registry)" in done.stderr
    assert list(served.home.iterdir()) == []


def test_a_wrong_option_is_told_before_anything_is_made(served: Served) -> None:
    for options in (("--listen", "localhost:5000"), ("--push-user", "a:b"), ("--push-user", "pull"), ("--name", "a b")):
        done = served.cli("up", *options)
        assert done.returncode == 2, done.stderr
        assert not (served.home / "registry.crt").exists()


def test_an_engine_pushes_and_pulls_by_digest(served: Served, engine: Engine, base_images: dict[str, str]) -> None:
    """On an address that engines do not trust by themselves, so that the certificate is what counts."""
    host = bridge_address()
    address = f"{host}:{served.port}"
    served.up("--listen", f"{host}:{served.port}")
    trusted = Path("/etc/docker/certs.d") / address
    image = f"{address}/team/app:b1"
    engine.docker("tag", base_images["busybox"], image)
    try:
        assert "x509" in docker(engine, served, "push", "push", image, address=address)[1]
        trusted.mkdir(parents=True)
        shutil.copy(served.home / "registry-ca.crt", trusted / "ca.crt")
        assert docker(engine, served, "pull", "push", image, address=address)[0] != 0
        status, said = docker(engine, served, "push", "push", image, address=address)
        assert status == 0, said
        client = Registry(address, *served.login("pull"), ca_file=served.home / "registry-ca.crt")
        digest = client.digest("team/app", "b1")
        assert digest is not None
        assert digest in said
        engine.docker("rmi", image)
        by_digest = f"{address}/team/app@{digest}"
        status, said = docker(engine, served, "pull", "pull", by_digest, address=address)
        assert status == 0, said
        assert digest in engine.docker("image", "inspect", by_digest, "--format", "{{.RepoDigests}}")
        engine.docker("rmi", by_digest)
    finally:
        engine.attempt("rmi", image)
        shutil.rmtree(trusted, ignore_errors=True)


def bridge_address() -> str:
    """An address of this host that is not loopback, and that nobody else can reach."""
    need("ip")
    shown = subprocess.run(["ip", "-j", "-4", "address", "show", "docker0"], capture_output=True, check=True).stdout
    return str(json.loads(shown)[0]["addr_info"][0]["local"])


def docker(engine: Engine, served: Served, role: str, verb: str, image: str, *, address: str) -> tuple[int, str]:
    """Push or pull with a lent login, as scripts do: a private DOCKER_CONFIG, never `docker login` into a home."""
    with tempfile.TemporaryDirectory() as directory:
        login = base64.b64encode(":".join(served.login(role)).encode()).decode()
        (Path(directory) / "config.json").write_text(json.dumps({"auths": {address: {"auth": login}}}))
        done = subprocess.run(
            ["docker", verb, image],
            env={**engine.env, "DOCKER_CONFIG": directory},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    return done.returncode, done.stdout + done.stderr
