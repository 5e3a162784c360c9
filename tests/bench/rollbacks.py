"""From the word to go back to the first old answer, while the old container still runs; floor: a bare flag rename."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.bench.figures import Figure, in_turn
from tests.bench.nginx import BareNginx
from tests.real.demo.doors import Door
from tests.real.demo.files import PROJECT
from tests.real.demo.story import Story
from tests.real.demo.telling import Teller
from tests.real.demo.world import World
from tests.real.waiting import wait_until

_ROUNDS = 7
_PLACE = f"/projects/{PROJECT}/environments/production"


def figures(world: World, directory: Path) -> Iterator[Figure]:
    """Measure the command on the production host, then the press at the master."""
    _keep_hot(world)
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for figures
        served = _two_releases(world)
    flag = Flag(directory / "rollback-floor")
    try:
        for name, act in (("rollback_hot", _on_host), ("rollback_hot_api", _by_api)):
            turns = _turns(world, served, act)
            floors, mines = in_turn(_ROUNDS, flag.turn, lambda turns=turns: next(turns))  # type: ignore[misc]  # bound early
            yield Figure(name, "ms", floors, mines, ["the floor is a rename and the first answer of the other slot"])
    finally:
        flag.close()


def _keep_hot(world: World) -> None:
    """Have the production host keep old containers running, as it does unless its file says otherwise."""
    config = world.host.path("/etc/keepflow/agent.yml")
    text = config.read_text()
    config.write_text(text.replace('"hot": "0s"', '"hot": "1h"').replace("hot: 0s", "hot: 1h"))
    if config.read_text() == text:
        raise RuntimeError("the production host's file does not say how long old containers run")


def _two_releases(world: World) -> dict[str, str]:
    """Promote two releases and return digest → marker, the serving one last."""
    story = Story(world, Teller())
    served = {}
    for _ in range(2):
        live = story.promote(story.tested())
        world.master.ended(live.run)
        served[_serves(world)] = live.marker
    return served


def _turns(world: World, served: dict[str, str], act: Callable[[World, str], object]) -> Iterator[float]:
    """Go back and forth between the two, each time to the one that waits hot in the other slot."""
    door = world.doors["production"]
    while True:
        target = next(digest for digest in served if digest != _serves(world))
        began = time.monotonic()
        wait = act(world, target)
        yield (door.shows(served[target], 30) - began) * 1000
        if isinstance(wait, subprocess.Popen) and wait.wait(60):
            raise RuntimeError(f"keepflow agent rollback ended with {wait.returncode}")
        wait_until(lambda target=target: _settled(world, target), 60, "the master knowing it")  # type: ignore[misc]  # ditto


def _on_host(world: World, target: str) -> subprocess.Popen[bytes]:
    log = world.directory / "logs" / "rollback.log"
    argv = ("agent", "rollback", PROJECT, "--to", target)
    return world.keepflow.start(*argv, log=log, prefix=world.host.prefix)


def _by_api(world: World, target: str) -> None:
    world.master.api.post(f"{_PLACE}/rollbacks", {"source": target, "reason": "measured"})


def _serves(world: World) -> str:
    return str(world.master.environment("production")["serving"]["identity"])


def _settled(world: World, target: str) -> bool:
    """Say whether the master expects what serves, and the host said that it serves, with the other one hot."""
    place = world.master.environment("production")
    [host] = place["hosts"]
    known = place["serving"]["identity"] == target == host["observed"] and place["underway"] is None
    return known and place["rollback"]["how"] == "hot"


class Flag:
    """A bare nginx before two bare servers; `turn` sends visitors to the other one by a rename and waits for it."""

    def __init__(self, root: Path) -> None:
        self._servers = [_Server(name) for name in ("blue", "green")]
        blue, green = (server.place for server in self._servers)
        self._nginx = BareNginx.switching(root, blue, green)
        self._flag, self._off = root / "green", root / "not-green"
        self._off.touch()
        self._door = Door(f"http://127.0.0.1:{self._nginx.port}", "localhost")

    def turn(self) -> float:
        """Return the milliseconds until the other one answered."""
        to_green = self._off.exists()
        began = time.monotonic()
        if to_green:
            self._off.rename(self._flag)
        else:
            self._flag.rename(self._off)
        return (self._door.shows("green" if to_green else "blue", 10) - began) * 1000

    def close(self) -> None:
        """End everything."""
        self._nginx.stop()
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, name: str) -> None:
        self.page = f"marker: {name}\n".encode()
        super().__init__(("127.0.0.1", 0), _Page)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Page(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.page)))
        self.end_headers()
        self.wfile.write(self.server.page)

    def log_message(self, *_: object) -> None:
        pass
