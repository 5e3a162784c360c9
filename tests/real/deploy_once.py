"""One deployment by a process of its own, so that it can be killed: `python -m tests.real.deploy_once < order.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from keepflow.agent.deployment import Deployment
from tests.real.deploying import Host
from tests.real.engines import Engine


def main() -> None:
    """Carry out the deployment that stdin describes."""
    told = json.load(sys.stdin)
    engine = Engine.running(Path(told["socket"]))
    host = Host(engine, {}, Path(told["root"]), told["pool"], told["service"], told["port"])
    host.deployer(**told["policy"]).deploy(Deployment.from_json(told["deployment"]))


if __name__ == "__main__":
    main()
