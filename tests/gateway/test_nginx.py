"""The master's own virtual host, rendered, checked by nginx, and a real master behind it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from jinja2 import Environment, StrictUndefined

from keepflow.tools.shipped import shipped
from keepflow.wire import messages
from tests.bench.nginx import BareNginx
from tests.gateway.conftest import Served, serve
from tests.gateway.played import Played
from tests.gateway.readers import Reader
from tests.processes import MasterProcess, hook_headers, push_body
from tests.real.parts import need

pytestmark = pytest.mark.real


def _render(**values: str) -> str:
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701 - no HTML
    defaults = {"certificate": "", "certificate_key": "", "listen": ""}
    template = environment.from_string(shipped("nginx", "master.conf.j2").read_text())
    return template.render(**{**defaults, **values})


class Front(BareNginx):
    """An nginx with the rendered host; `text` may hold {port}."""

    def __init__(self, root: Path, text: str) -> None:
        super().__init__(root, text.replace("{", "{{").replace("}", "}}").replace("@port@", "{port}"))


@pytest.fixture(scope="module")
def fronted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, MasterProcess]]:
    """A master, and the same one as visitors of nginx see it."""
    need("nginx")
    directory = tmp_path_factory.mktemp("fronted")
    served = serve(directory, env={"KEEPFLOW_TRUSTED_PROXIES": "127.0.0.1"})
    upstream = served.master.url.removeprefix("http://")
    # Outside of pytest's directory, which nginx's workers may not enter.
    with TemporaryDirectory(prefix="keepflow-nginx-") as place:
        Path(place).chmod(0o755)
        text = _render(server_name="localhost", upstream=upstream, listen="127.0.0.1:@port@")
        front = Front(Path(place) / "nginx", text)
        yield served, replace(served.master, port=front.port)
        front.stop()
    served.master.close()


def test_nginx_accepts_the_host_with_and_without_a_certificate(tmp_path: Path) -> None:
    need("nginx", "openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=x"]
    subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    for name, more in (("plain", {}), ("tls", {"certificate": str(certificate), "certificate_key": str(key)})):
        text = _render(server_name="ci.example.org", upstream="127.0.0.1:7070", **more)
        conf = tmp_path / f"{name}.conf"
        conf.write_text(f"events {{}}\npid {tmp_path}/{name}.pid;\nerror_log stderr;\nhttp {{\n{text}\n}}\n")
        done = subprocess.run(["nginx", "-t", "-p", str(tmp_path), "-c", str(conf)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_hooks_pass_through_and_large_ones_are_stopped(fronted: tuple[Served, MasterProcess]) -> None:
    served, seen = fronted
    body = push_body(sha=served.sha, size=1_000_000)
    assert seen.ask("POST", "/hooks/app", body, hook_headers(body, "nginx-1")).status == 202
    assert seen.ask("POST", "/hooks/app", b"x" * 27_500_000, hook_headers(b"", "nginx-2")).status == 413


def test_agents_links_and_live_logs_pass_through(fronted: tuple[Served, MasterProcess]) -> None:
    served, seen = fronted
    agent = Played.joined(seen, "builder")
    link = agent.link()
    body = push_body(sha=served.sha)
    assert seen.ask("POST", "/hooks/app", body, hook_headers(body, "nginx-3")).status == 202
    order = link.take_order().body
    assert isinstance(order, messages.RunJob)
    fence = order.fence
    reader = Reader(seen, f"/streams/runs/app/{order.run}/log")
    for number in range(3):
        link.send_log(fence, number * 5, b"line\n")
        assert reader.until("log")[-1].data["to"] == number * 5 + 5, "each line must be seen when it is written"
    link.report(messages.JobFinished(fence=fence, at=1, state="succeeded", exit_code=0, log_bytes=15))
    reader.until("end")
    reader.close()
    link.close()


def test_the_proxy_that_is_trusted_tells_who_the_visitor_is(fronted: tuple[Served, MasterProcess]) -> None:
    _, seen = fronted
    assert seen.get("/login", {"X-Forwarded-For": "203.0.113.9"}).status == 200
    assert seen.get("//login").status == 404, "nginx must not merge slashes"
