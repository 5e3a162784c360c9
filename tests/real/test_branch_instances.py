"""Two branches side by side on a real engine behind a real nginx, and one of them taken away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from keepflow.agent.deployer import Deployer
from keepflow.core import names
from keepflow.core.flows import Volume
from keepflow.core.states import Phase
from keepflow.tools.http_get import NoAnswer, get
from tests.real.deploying import Host
from tests.real.engines import Engine

pytestmark = pytest.mark.real

ONE, OTHER = (names.branch_instance(f"refs/heads/{branch}") for branch in ("feature/cart", "feature-cart"))
DATA = (Volume("data", "/data", shared=True),)


@pytest.fixture
def host(engine: Engine, releases: dict[str, str]) -> Iterator[Host]:
    """A host whose pool has room for two instances and more."""
    made = Host.fresh(engine, releases)
    made.pool = made.pool.rpartition(".")[0] + ".0/24"
    yield made
    made.clean()


def of_branches(host: Host) -> Deployer:
    return host.deployer(server_name="*.dev.example.org", instances=(), most=2)


def deploy(host: Host, deployer: Deployer, instance: str, version: str, action: str = "deploy") -> Phase:
    order = replace(host.order(version, action=action, volumes=DATA), instance=instance)
    return deployer.deploy(order).outcome


def seen(host: Host, instance: str) -> str | None:
    """Ask the front door for an instance by its host name; None when it answers for nobody."""
    try:
        answer = get("127.0.0.1", host.port, "/", {"Host": f"{instance}.dev.example.org"}, timeout=5)
    except NoAnswer:
        return None
    return answer.body.decode() if answer.status == 200 else None


def left(host: Host, instance: str) -> list[str]:
    """List what the engine has of an instance."""
    label = f"label={names.LABEL_INSTANCE}={instance}"
    service = f"label={names.LABEL_SERVICE}={host.service}"
    kinds = (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
    found = [host.engine.docker(*kind, "--quiet", "--filter", label, "--filter", service).split() for kind in kinds]
    tags = host.engine.docker("image", "ls", "--quiet", f"{names.prefix(host.service, instance)}-keep").split()
    return [one for kind in (*found, tags) for one in kind]


def test_r46_two_branches_serve_side_by_side_and_one_goes_with_its_branch(host: Host) -> None:
    deployer = of_branches(host)
    assert deploy(host, deployer, ONE, "v1") is Phase.DONE
    assert deploy(host, deployer, OTHER, "v2") is Phase.DONE
    assert ("v1" in (seen(host, ONE) or ""), "v2" in (seen(host, OTHER) or "")) == (True, True)
    [site] = (host.root / "nginx").rglob(f"{names.prefix(host.service, ONE)}.conf")
    written = site.stat().st_mtime_ns
    assert deploy(host, deployer, ONE, "v3") is Phase.DONE
    assert "v3" in (seen(host, ONE) or "")
    assert site.stat().st_mtime_ns == written
    assert left(host, ONE)

    assert deploy(host, of_branches(host), ONE, "v3", "remove") is Phase.DONE
    assert seen(host, ONE) is None
    assert left(host, ONE) == []
    assert not site.exists()
    assert "v2" in (seen(host, OTHER) or "")
    assert of_branches(host).recover() == []
    assert of_branches(host).instances(host.service) == [OTHER]

    assert deploy(host, of_branches(host), OTHER, "v2", "remove") is Phase.DONE
    assert left(host, OTHER) == []
