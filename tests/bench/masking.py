"""How fast secrets are taken out of a log: 100 secrets in every spelling; floor: `grep -F` for what is sought."""

from __future__ import annotations

import base64
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from keepflow.core.masking import Masker, Sought, needles_for
from keepflow.tools.needles import sought
from tests.bench.figures import Figure, in_turn
from tests.real.demo.world import World

_MB = 64
_PIECE = 65536  #: bytes, as an agent reads a job's output
_ROUNDS = 5


def figures(world: World, directory: Path) -> Iterator[Figure]:  # noqa: ARG001 - every bench is called alike
    """Measure megabytes a second without a secret, with a job's own token, with 100 secrets, and full of secrets."""
    rng = random.Random(1)  # noqa: S311 - the same secrets every time
    hundred = [base64.b64encode(rng.randbytes(24)) for _ in range(97)] + [_pem(rng) for _ in range(3)]
    plain, full = _lines(rng, b""), _lines(rng, b" token=" + hundred[0])
    for name, secrets, piece in (
        ("mask_none", [], plain),
        ("mask_token", [b"kf_job_" + base64.b64encode(rng.randbytes(24))], plain),
        ("mask_100", hundred, plain),
        ("mask_100_in_every_line", hundred, full),
    ):
        needles = sought([needle for secret in secrets for needle in needles_for(secret)])
        texts, data = directory / f"{name}.texts", directory / f"{name}.log"
        texts.write_bytes(b"\n".join(needles.texts or [b"nothing to be masked"]) + b"\n")
        data.write_bytes(piece * (_MB * 1_000_000 // len(piece)))
        grep = ("grep", "-c", "-F", "-f", str(texts), str(data))
        floors, mines = in_turn(_ROUNDS, lambda grep=grep: _searched(grep), lambda n=needles, p=piece: _masked(n, p))
        data.unlink()
        yield Figure(name, "MB/s", floors, mines, [f"{len(needles.texts):,} texts looked for at once"])


def _pem(rng: random.Random) -> bytes:
    lines = b"\n".join(base64.b64encode(rng.randbytes(48)) for _ in range(25))
    return b"-----BEGIN PRIVATE KEY-----\n" + lines + b"\n-----END PRIVATE KEY-----"


def _lines(rng: random.Random, more: bytes) -> bytes:
    line = b"[ 12%] Building CXX object src/CMakeFiles/app.dir/main.cpp.o /usr/include/c++/12/bits/stl_vector.h"
    return b"".join(line[rng.randrange(20) :] + more + b"\n" for _ in range(1000))[:_PIECE]


def _searched(grep: tuple[str, ...]) -> float:
    began = time.perf_counter()
    subprocess.run(grep, stdout=subprocess.DEVNULL, env={"LC_ALL": "C"}, check=False)
    return _MB / (time.perf_counter() - began)


def _masked(needles: Sought, piece: bytes) -> float:
    masker, began = Masker(needles), time.perf_counter()
    for _ in range(_MB * 1_000_000 // len(piece)):
        masker.feed(piece)
    return _MB / (time.perf_counter() - began)
