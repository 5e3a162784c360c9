"""How many signed 10 KB hooks a second are accepted, each on the disk before its 202; floor: nginx `return 202`."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Figure, in_turn
from tests.bench.nginx import BareNginx
from tests.real.demo.files import PROJECT
from tests.real.demo.world import World

CONNECTIONS = (1, 16, 64)
_BODY_BYTES = 10 * 1024
_SECONDS = 3
_ROUNDS = 3
#: Every request is a delivery of its own; body and signature are the same, as a forge that redelivers would send them.
_SCRIPT = """
local count = 0
wrk.method = "POST"
wrk.body = io.open("{body}", "rb"):read("*a")
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-GitHub-Event"] = "push"
wrk.headers["X-Hub-Signature-256"] = "sha256={signature}"
function request()
  count = count + 1
  wrk.headers["X-GitHub-Delivery"] = "{prefix}-" .. count
  return wrk.format(nil, "{path}")
end
function done(summary, latency, requests)
  io.write(string.format("p99=%.3f bad=%d\\n", latency:percentile(99) / 1000,
    summary.errors.status + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"""


def figures(world: World, directory: Path) -> Iterator[Figure]:
    """Measure at 1, 16 and 64 connections."""
    _, sha = world.repository.change("bench")  # no flow is started by this branch
    world.repository.push("bench")
    body = _body(sha)
    (directory / "body.json").write_bytes(body)
    secret = world.hook_secret.read_text().strip().encode()
    signature = hmac.new(secret, body, hashlib.sha256).hexdigest()
    floor = BareNginx.accepting(directory / "accepting")
    try:
        for connections in CONNECTIONS:
            yield _figure(world, directory, signature, floor, connections)
    finally:
        floor.stop()


def _figure(world: World, directory: Path, signature: str, floor: BareNginx, connections: int) -> Figure:
    slowest: list[float] = []

    def keepflow() -> float:
        rate, p99 = _load(directory, world.master.url, f"/hooks/{PROJECT}", signature, connections)
        slowest.append(p99)
        return rate

    def nginx() -> float:
        return _load(directory, f"http://127.0.0.1:{floor.port}", "/", signature, connections)[0]

    floors, mine = in_turn(_ROUNDS, nginx, keepflow)
    notes = [f"p99 {max(slowest):.1f} ms in the worst round; every 202 is fsynced"]
    return Figure(f"hook_accept_{connections}", "hooks/s", floors, mine, notes)


def _load(directory: Path, url: str, path: str, signature: str, connections: int) -> tuple[float, float]:
    """Send for some seconds and return answers a second and the 99th percentile in milliseconds."""
    script = directory / "hooks.lua"
    script.write_text(
        _SCRIPT.format(body=directory / "body.json", signature=signature, prefix=secrets.token_hex(8), path=path)
    )
    argv = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{_SECONDS}s"]
    done = subprocess.run([*argv, "--script", str(script), url], capture_output=True, text=True, timeout=_SECONDS + 30)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    told = re.search(r"p99=([\d.]+) bad=(\d+)", done.stdout)
    if done.returncode or rate is None or told is None or int(told[2]):
        raise RuntimeError(f"the load at {url} did not go well:\n{done.stdout}{done.stderr}")
    return float(rate[1]), float(told[1])


def _body(sha: str) -> bytes:
    """Return a push as GitHub sends it, padded to the size with a list of files."""
    push = {
        "ref": "refs/heads/bench",
        "before": "0" * 40,
        "after": sha,
        "created": False,
        "deleted": False,
        "forced": False,
        "repository": {"full_name": "example/keepwork"},
        "pusher": {"name": "ann"},
        "sender": {"login": "ann"},
        "head_commit": {"id": sha, "message": "Begin the bench branch", "author": {"name": "Ann"}, "modified": []},
    }
    head = push["head_commit"]
    if not isinstance(head, dict):
        raise TypeError("a push has a head commit")
    while len(json.dumps(push)) < _BODY_BYTES - 40:
        head["modified"].append(f"src/package/module_{len(head['modified']):04}.py")
    return json.dumps(push).encode()
