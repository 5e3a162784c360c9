"""`keepflow run --local` with a real engine: a job in its container, with a service beside it, and nothing left."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepflow.cli.main import run
from tests.real.engines import Engine
from tests.tools.repositories import git

pytestmark = pytest.mark.real

FLOW = """\
flows:
  check:
    on: manual
    jobs:
      boxed:
        image: {name: "%(busybox)s", at: /src}
        services: {web: {image: "%(app)s", command: [python3, -m, http.server, "8000"], ready: {port: 8000}}}
        steps:
          - run: |
              pwd
              cat uncommitted
              wget -q -O - http://web:8000/ | grep -i "directory listing" >/dev/null
              echo made > made
      after: {needs: boxed, steps: [{run: cat made}]}
"""


def test_a_local_run_puts_a_job_into_its_container_beside_its_services(
    engine: Engine,
    base_images: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    shop = tmp_path / "localshop"
    shop.mkdir()
    git(shop, "init", "--quiet", "--initial-branch=dev", ".")
    (shop / ".keepflow.yml").write_text(FLOW % base_images)
    (shop / "uncommitted").write_text("not committed\n")
    monkeypatch.chdir(shop)
    code = run(["run", "check", "--local"])
    out, err = capfd.readouterr()
    assert code == 0, out + err
    assert "\n/src\n" in out
    assert "\nnot committed\n" in out
    assert out.rstrip().endswith("── succeeded")
    assert "\nmade\n" in out
    assert not (shop / "made").exists()
    assert engine.docker("ps", "--all", "--quiet", "--filter", "label=keepflow.run=localshop#0") == ""
