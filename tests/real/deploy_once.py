"""What an agent does, by a process of its own that can be killed: `python -m tests.real.deploy_once < order.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from keepflow.agent.deployment import Deployment
from tests.real.deploying import Host
from tests.real.engines import Engine


def main() -> None:
    """Carry out the deployment that stdin describes; without one, take up what an earlier process left."""
    told = json.load(sys.stdin)
    engine = Engine.running(Path(told["socket"]))
    host = Host(engine, {}, Path(told["root"]), told["pool"], told["service"], told["port"])
    deployer = host.deployer(**told["policy"])
    if told["deployment"]:
        deployer.deploy(Deployment.from_json(told["deployment"]))
    else:
        deployer.recover()


if __name__ == "__main__":
    main()
