"""`python -m tests.real.demo [--check]`: build the world, tell the story, check it or stay up, take everything away."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from types import FrameType

from tests.real.demo.claims import Claims
from tests.real.demo.story import Released, Story
from tests.real.demo.telling import Teller
from tests.real.demo.trust import Trust
from tests.real.demo.world import World


class Stopped(BaseException):
    """Somebody ended the demo: Ctrl-C, or a signal."""


def main(argv: list[str] | None = None) -> int:
    """Run the demo and return its exit code: 0, or 1 when something failed or a claim does not hold."""
    parser = argparse.ArgumentParser(prog="scripts/demo.sh", description="Shows the whole chain on real parts.")
    parser.add_argument("--check", action="store_true", help="verify every claim from outside, and end")
    check = parser.parse_args(argv).check
    if os.geteuid() != 0:
        print("demo.sh: needs root, for a second host with an engine of its own: sudo scripts/demo.sh", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    teller = Teller()
    trouble = ""
    try:
        with World(teller.step) as world:
            try:
                _tell(world, teller, check)
            finally:
                teller.step("ending", "takes away everything that was made")
    except Stopped:
        trouble = "" if not check else "stopped"
    except Exception as error:
        traceback.print_exc()
        trouble = f"{type(error).__name__}: {error}".splitlines()[0]
    if trouble:
        teller.claim("the demo comes to its end", False, trouble)
    return teller.summary() if check else bool(trouble)


def _tell(world: World, teller: Teller, check: bool) -> None:
    story = Story(world, teller)
    released = story.release()
    teller.took("push_to_dev", released.dev.seconds)
    teller.took("push_to_test", released.test.seconds)
    teller.took("promote", released.production.seconds)
    teller.took("master_ready", world.seconds["master_ready"])
    claims = Claims(world, teller, story) if check else None
    if claims:
        _check_release(claims, released)
    _tell_trust(world, teller, story, claims)
    if claims:
        _check_the_rest(claims)
    else:
        teller.text(_INVITATION.format(world=world, story=story, program=world.keepflow.program.parent))
        while True:
            signal.pause()


def _tell_trust(world: World, teller: Teller, story: Story, claims: Claims | None) -> None:
    """Verify, promote what turns out bad, go back; what is claimed of it is checked where it just happened."""
    trust = Trust(world, teller, story)
    kept = trust.verify(world.directory)
    bad = trust.bad_release()
    if claims:
        claims.evidence(kept)
        claims.put_back(bad)
    back = trust.roll_back()
    if claims:
        claims.serves(back)
    teller.took("bad_release_put_back", bad.seconds)
    teller.took("rollback", back.seconds)


def _check_release(claims: Claims, released: Released) -> None:
    for live in (released.dev, released.test, released.production):
        claims.serves(live)
    claims.same_digest(released.test, released.production)
    claims.no_way_in()


def _check_the_rest(claims: Claims) -> None:
    for environment in ("dev", "test", "production"):
        claims.switches_without_loss(environment)
    claims.log_streams()
    claims.hand_made_push()
    claims.hostile_names()
    claims.memory()


def _stop(number: int, _frame: FrameType | None) -> None:
    """End the demo; what comes while everything is taken away is too late."""
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(signal.Signals(number).name)


_INVITATION = """
Everything is up. Push something yourself:

    cd {world.repository.work}
    git checkout dev
    echo hello >www/marker.txt
    git commit -am hello
    git push origin dev

  dev          {world.doors[dev].url}/
  test         {world.doors[test].url}/
  production   {world.doors[production].url}/
  pages        {world.names.master}/
  first visit  {world.master.setup_link}

The command line, in another terminal:

    export KEEPFLOW_HOME={world.directory}/home PATH={program}:$PATH
    keepflow runs
    keepflow promote --run N --to production        # N: a run of a push to master

Ctrl-C ends it and removes everything.
"""


if __name__ == "__main__":
    sys.exit(main())
