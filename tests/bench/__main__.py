"""`python -m tests.bench [--list] [NAME…]`: measure, print a table on stderr and one JSON line per figure on stdout."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import cancels, hooks, logs, masking, promotes, pushes, queued, resources, rollbacks, steps
from tests.bench.figures import HEADER, Figure, show
from tests.real.demo.world import World

#: Name → what measures it; in this order: `to_live` changes the flow of dev, and accepted hooks go on being handled.
BENCHES: dict[str, Callable[[World, Path], Iterator[Figure]]] = {
    "step_overhead": steps.figures,
    "masking": masking.figures,
    "logs": logs.figures,
    "queued_jobs": queued.figures,
    "push_to_step": pushes.to_step,
    "push_to_live": pushes.to_live,
    "promote_rehearsed": promotes.figures,
    "rollback_hot": rollbacks.figures,
    "cancel": cancels.figures,
    "resources": resources.figures,
    "hook_accept": hooks.figures,
}


def main() -> int:
    """Run the benches named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="bench.sh", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benches (all)")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    chosen = parser.parse_args()
    if chosen.list:
        print("\n".join(BENCHES))
        return 0
    unknown = sorted(set(chosen.names) - BENCHES.keys())
    if unknown:
        parser.error(f"no bench {', '.join(unknown)}; there are: {', '.join(BENCHES)}")
    with World() as world, tempfile.TemporaryDirectory(prefix="keepflow-bench.") as temporary:
        Path(temporary).chmod(0o755)
        print(HEADER, file=sys.stderr)
        for name, bench in BENCHES.items():
            if not chosen.names or name in chosen.names:
                for figure in bench(world, Path(temporary)):
                    show(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
