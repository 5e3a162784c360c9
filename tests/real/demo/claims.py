"""What the demo claims, checked from outside: by visitors, by the engines, by the registry, by the kernel."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from keepflow.tools.registry import Registry
from tests.hostile import CANARY, NAMES
from tests.real.demo.hostility import push_hostile
from tests.real.demo.processes import memory
from tests.real.demo.story import Live, Story
from tests.real.demo.telling import Teller
from tests.real.demo.trust import PutBack
from tests.real.demo.world import World
from tests.real.engines import Engine
from tests.real.hosts import Load

_SERVICE = "keepflow.service"
#: The arguments that each environment's container is started with.
_SAYS = {"dev": "dev", "test": "test", "production": "prod"}
#: Some hostile branches for the demo; the tests push all of them.
_HOSTILE = (*[name for name in NAMES if CANARY in name][:9], "<script>alert(1)</script>", "--all", "🚀")


class Claims:
    """Checks claims about one world and tells each."""

    def __init__(self, world: World, teller: Teller, story: Story) -> None:
        self._world = world
        self._teller = teller
        self._story = story

    def serves(self, live: Live) -> None:
        """What visitors get is what was pushed, and the master says so, too, with a receipt."""
        world, name = self._world, live.environment
        version = world.doors[name].version()
        self._teller.claim(f"{name} serves commit {live.sha[:10]}", version["commit"] == live.sha, version)
        said = version["environment"]
        self._teller.claim(f"the container of {name} was started for {_SAYS[name]}", said == _SAYS[name], said)
        run = world.master.ended(live.run)
        self._teller.claim(f"run {live.run} succeeded", run["state"] == "succeeded", run["reason"])
        deployment = world.master.deployment(live.run)
        receipt = deployment["receipt"] or {}
        self._teller.claim(f"the deployment to {name} is done", deployment["phase"] == "done", deployment["reason"])
        fits = receipt.get("digest_after") == deployment["identity"] and receipt["probes"]["failed"] == 0
        self._teller.claim("its receipt names the image that serves, and no probe failed", fits, receipt)

    def same_digest(self, tested: Live, promoted: Live) -> None:
        """Test and production run the very bytes that the registry has under the tag of the run."""
        world = self._world
        registry = world.registry
        password = Path(registry["pull_password_file"]).read_text().strip()
        asked = Registry(registry["address"], registry["pull_user"], password, Path(registry["ca_file"]))
        digest = asked.digest(world.image, f"b{tested.run}")
        wanted = f"{registry['address']}/{world.image}@{digest}"
        for name, engine, service in (
            ("test", world.engine, world.names.test),
            ("production", world.host.engine, "keepwork"),
        ):
            found = running_images(engine, service)
            self._teller.claim(f"{name} runs exactly {str(digest)[:19]} of the registry", found == [[wanted]], found)
        said = {name: world.master.environment(name)["serving"]["identity"] for name in ("test", "production")}
        self._teller.claim("the board shows the same digest in both", set(said.values()) == {digest}, said)
        closed = world.host.path("/var/lib/keepflow/agent/journal/closed")
        journals = list(closed.glob(f"*@{world.master.deployment(promoted.run)['id']}.jsonl"))
        last = json.loads(journals[0].read_text().splitlines()[-1]) if journals else {}
        ended = last.get("kind") == "outcome" and last["outcome"]["outcome"] == "done"
        self._teller.claim("the journal on the production host ends with done", ended, last)

    def no_way_in(self) -> None:
        """On the production host nothing listens but nginx; the agent hears only its own account, on that host."""
        host, agent = self._world.host, self._world.production.pid
        listening = host.listening()
        doors = {(listener.program, listener.protocol, listener.port) for listener in listening}
        self._teller.claim(
            "on the production host only nginx listens, on port 80", doors == {("nginx", "tcp", 80)}, listening
        )
        everything = host.run("ss", "--no-header", "--listening", "--processes").stdout
        own = [line for line in everything.splitlines() if f"pid={agent}," in line]
        alone = len(own) == 1 and "/hand.sock " in own[0]
        self._teller.claim("its agent listens to nobody but its own account on its own host", alone, own)

    def switches_without_loss(self, environment: str) -> Live:
        """A switch under 40 keep-alive clients that GET and POST loses no request."""
        world, door = self._world, self._world.doors[environment]
        tested = self._story.tested() if environment == "production" else None
        before = door.marker()
        with Load(door.url, world.directory / "logs" / f"load-{environment}", host_header=door.name) as load:
            live = self._story.promote(tested) if tested else self._story.push(_BRANCH[environment], environment)
            run = world.master.ended(live.run)
            summary = load.finish()
        self._teller.count("requests", summary["sent"])
        self._teller.count("failed_requests", summary["failed"])
        told = {key: summary[key] for key in ("sent", "failed", "errors", "p99_ms", "longest_gap_ms")}
        kept = summary["failed"] == 0 and summary["sent"] > 200
        self._teller.claim(f"{environment}: {summary['sent']} requests during the switch, none failed", kept, told)
        marks = [mark["mark"] for mark in summary["marks"]]
        self._teller.claim("its clients saw the old page, then the new one", marks == [before, live.marker], marks)
        self._teller.claim(f"run {live.run} succeeded", run["state"] == "succeeded", run["reason"])
        self._teller.took(f"{environment}_under_load", live.seconds)
        return live

    def evidence(self, kept: Path) -> None:
        """What proves a release can be checked without the master, and one changed letter is named."""
        forged = kept.with_name("forged.json")
        text = kept.read_text()
        payload = text.index('"payload"') + 40
        forged.write_text(text[:payload] + ("A" if text[payload] != "A" else "B") + text[payload + 1 :])
        told = self._world.keepflow.attempt("verify", str(forged))
        self._teller.claim("evidence with one letter changed is refused", told.returncode == 4, told)
        self._teller.text(f"{'':10}· {(told.stderr or told.stdout).strip().splitlines()[-1][:150]}")

    def put_back(self, bad: PutBack) -> None:
        """A release that fails its visitors is gone again at once, and does not come back by itself."""
        world, told = self._world, bad.deployment
        self._teller.claim("the bad release was reverted", told["phase"] == "reverted", told["reason"])
        visits = bad.visits
        kept = not visits.wrong and visits.asked > 20
        self._teller.claim(f"{visits.asked} visitors meanwhile, all answered", kept, visits.wrong[:5])
        self._teller.count("visitors_of_bad_release", visits.asked)
        last = "no visitor number 21 was foreseen"
        self._teller.claim("the last lines of its log are kept", last in told["log_tail"], told["log_tail"][-300:])
        again = world.promote(bad.tested.run)
        named = again.returncode != 0 and "quarantine" in again.stderr
        self._teller.claim("the same release is not promoted again", named, again)

    def log_streams(self) -> None:
        """`keepflow logs -f`, begun while a run is under way, shows all of its log and ends with it."""
        world = self._world
        marker, sha = world.repository.change("dev")
        world.repository.push("dev")
        number = world.master.run_of(sha)["number"]
        followed = world.keepflow.attempt("logs", str(number), "--follow")
        whole = world.keepflow("logs", str(number))
        same = followed.returncode == 0 and followed.stdout.strip() == whole
        self._teller.claim(
            f"the log of run {number} streams from its first line and ends", same, followed.stdout[-300:]
        )
        commands = "$ scripts/build-image.sh dev" in whole
        self._teller.claim("the log shows each command before its output", commands, whole[:600])
        world.doors["dev"].shows(marker, 30)
        world.master.ended(number)

    def hand_made_push(self) -> None:
        """A push from a bare shell goes live with nothing else done."""
        world = self._world
        shell = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(world.directory / "person")}
        pushed = subprocess.run(
            ["sh", "-euc", _BY_HAND], cwd=world.repository.work, env=shell, capture_output=True, text=True, timeout=60
        )
        self._teller.claim("git push origin dev, by hand, succeeds", pushed.returncode == 0, pushed.stderr)
        try:
            world.doors["dev"].shows("by-hand", 30)
            seen = "by-hand"
        except TimeoutError as error:
            seen = str(error)
        self._teller.claim("it goes live with nothing else done", seen == "by-hand", seen)
        world.quiet()

    def hostile_names(self) -> None:
        """Branches whose names attack everybody they meet run like any other, and run nothing of their own."""
        world = self._world
        Path(CANARY).unlink(missing_ok=True)
        wrong = push_hostile(world, _HOSTILE)
        self._teller.claim(f"{len(_HOSTILE)} hostile branch names come through as text", not wrong, wrong)
        self._teller.claim("none of them ran anything", not Path(CANARY).exists(), CANARY)

    def memory(self) -> None:
        """Tell what master and agents take when nothing happens."""
        world = self._world
        taken = {"master": memory(world.master.pid), "agent": memory(world.production.pid)}
        for name, most in (("master", 120), ("agent", 60)):
            self._teller.count(f"{name}_mb", round(taken[name]))
            self._teller.text(f"{'':10}· the {name} takes {taken[name]:.0f} MB (aim: {most})")


_BY_HAND = """\
git checkout --quiet dev
echo by-hand >www/marker.txt
git commit --quiet --all --message "By hand"
git push --quiet origin dev
"""
_BRANCH = {"dev": "dev", "test": "master"}


def running_images(engine: Engine, service: str) -> list[list[str]]:
    """Return, for each running container of a service, the names by digest of its image."""
    containers = engine.docker("ps", "--quiet", "--filter", f"label={_SERVICE}={service}").split()
    images = [engine.docker("inspect", "--format", "{{.Image}}", container) for container in containers]
    told = [engine.docker("image", "inspect", "--format", "{{json .RepoDigests}}", image) for image in images]
    return [json.loads(line) for line in told]
