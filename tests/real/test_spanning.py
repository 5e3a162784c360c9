"""Runs that span two machines: two agents, each with a place of its own, and what goes from one to the other (R32)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.real.several import Several
from tests.real.waiting import wait_until

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    """Two agents with nothing in common but their master."""
    found = Several(tmp_path_factory.mktemp("spanning"), linux=("linux",), gpu=("gpu",))
    try:
        yield found.start()
    finally:
        found.close()


def states(run: dict[str, object]) -> dict[str, str]:
    jobs = run["jobs"]
    assert isinstance(jobs, dict)
    return {key: job["state"] for key, job in jobs.items()}


THERE_AND_BACK = """\
flows:
  flow:
    on: manual
    jobs:
      make:
        labels: linux
        steps:
          - run: |
              printf 'one\\r\\n' >made; printf 'a\\0b' >binary; mkdir -p out/deep void; echo 1 >out/deep/é
              ln -s out/deep link; ln -s /etc/passwd outside; echo '#!/bin/sh' >tool; chmod +x tool
              echo kept >ignored.o; rm gone; echo 2 >app.c
              head -c 20000000 /dev/urandom >large; sha256sum large >sum
              echo VERSION=7 >>"$KEEPFLOW_OUTPUT"
          - artifacts: [made]
      train:
        needs: make
        labels: gpu
        steps:
          - run: |
              test "$NODE_NAME" = gpu; test "$VERSION" = 7; sha256sum -c sum; rm made
              test "$(cat app.c)" = 2; test ! -e gone; test -x tool; test -d void; test "$(cat ignored.o)" = kept
              test "$(readlink link)" = out/deep; test "$(readlink outside)" = /etc/passwd
              test "$(cat link/é)" = 1; printf 'a\\0b' | cmp - binary; test "$(wc -c <crlf.txt)" = 3
              echo trained >model; mv large moved
      ship:
        needs: train
        steps:
          - run: test "$NODE_NAME" = linux; test "$(cat model)" = trained; test -e moved; test ! -e large; cat sum
"""
FILES: dict[str, str | bytes | None] = {
    "app.c": "1",
    "gone": "x",
    ".gitignore": "*.o\n",
    ".gitattributes": "crlf.txt text eol=crlf\nmade text\n",
    "crlf.txt": "a\n",
}


def test_r32_files_variables_and_artifacts_go_to_another_machine_and_back(two: Several) -> None:
    run = two.run(THERE_AND_BACK, FILES)
    log = two.log(run["number"])
    assert run["state"] == "succeeded", log
    assert log.count("on to other machines") == 2
    wait_until(lambda: not list((two.master.home / "workspaces").iterdir()), 30, "the end of the run's repository")
    assert two.cli("storage", "-o", "json").count('"workspaces": 0') == 1
