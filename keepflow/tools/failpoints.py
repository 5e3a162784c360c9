"""Named places in the code where a test can make the process die, wait or fail.

`KEEPFLOW_FAILPOINTS=name=kill,other=raise,third=sleep:0.5,fourth=hold:DIR` arms them; unarmed, one costs a look at a
dictionary. `hold` makes the file DIR/NAME.reached and goes on when there is a file DIR/go.
Each place before and after an act that changes the world has one, so that "killed at any moment" is a test.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

VARIABLE = "KEEPFLOW_FAILPOINTS"
_LOOK = 0.01  #: seconds between two looks for the file that ends a hold


class Injected(RuntimeError):
    """The failure that a test asked for by `name=raise`."""


def fail(name: str) -> None:
    """Do what the environment armed for this name: nothing, SIGKILL, a wait, a hold, or `Injected`."""
    armed = os.environ.get(VARIABLE)
    if not armed:
        return
    action = dict(pair.partition("=")[::2] for pair in armed.split(",")).get(name)
    if action is None:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action.startswith("sleep:"):
        time.sleep(float(action.removeprefix("sleep:")))
    elif action.startswith("hold:"):
        _hold(Path(action.removeprefix("hold:")), name)
    elif action == "raise":
        raise Injected(f"failpoint {name}")
    else:
        raise ValueError(f"{VARIABLE}: {name}={action}: only kill, raise, sleep:SECONDS and hold:DIR are known")


def _hold(place: Path, name: str) -> None:
    (place / f"{name}.reached").touch()
    while not (place / "go").exists():
        time.sleep(_LOOK)
