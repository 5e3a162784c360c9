"""Images that a host takes for containers of jobs, by patterns, however an image is spelled."""

from __future__ import annotations

import pytest

from keepflow.core.allowed_images import allowed, problem

D, E = "sha256:" + "d" * 64, "sha256:" + "e" * 64


@pytest.mark.parametrize(
    ("patterns", "yes", "no"),
    [
        (
            ["registry.example.org/*"],
            ["registry.example.org/node", "registry.example.org/node:22", f"registry.example.org/node@{D}"],
            [
                "node",
                "registry.example.org/a/b",
                "registry.example.org:5000/node",
                "evil.example.org/registry.example.org/node",
                "registry.example.org.evil.com/node",
            ],
        ),
        (["registry.example.org/**"], ["registry.example.org/a/b:1"], ["registry-example.org/a"]),
        (
            ["node"],
            ["node", "node:22", "docker.io/node", "docker.io/library/node:22", "index.docker.io/library/node"],
            ["nodes", "evil/node", "example.org/node", "library/evil/node"],
        ),
        (["docker.io/library/node"], ["node", "node:22"], ["busybox"]),
        (["team/*"], ["team/app", "docker.io/team/app:1"], ["team/a/b", "example.org/team/app"]),
        (["busybox:1.*"], ["busybox:1.36"], ["busybox", "busybox:2", f"busybox:1.36@{D}"]),
        (["busybox:latest"], ["busybox", "busybox:latest"], ["busybox:1"]),
        ([f"node@{D}"], [f"node@{D}", f"node:22@{D}"], [f"node@{E}", f"node:22@{E}", "node:22"]),
        (["**", "!evil/**"], ["node", "x/y"], ["evil/x", "docker.io/evil/x:1", "index.docker.io/evil/x"]),
        (["!node", "node"], ["node"], []),
        (["*", "**"], ["cafe:1"], ["sha256:" + "a" * 64, "0123456789ab", "cafe", "deadbeef"]),
        ([], [], ["node"]),
    ],
)
def test_patterns_and_spellings(patterns: list[str], yes: list[str], no: list[str]) -> None:
    assert [text for text in yes if not allowed(patterns, text)] == []
    assert [text for text in no if allowed(patterns, text)] == []


@pytest.mark.parametrize("text", ["", "--privileged", "a b", "node:22\n", "NODE", "/x", "a//b"])
def test_what_is_no_reference_is_not_judged(text: str) -> None:
    with pytest.raises(ValueError, match="not an image reference"):
        allowed(["**"], text)


@pytest.mark.parametrize("pattern", ["", "!", "a b", "-x", "a\nb", "https://x/y z", "x" * 300])
def test_a_pattern_that_can_never_fit_is_told(pattern: str) -> None:
    assert problem(pattern)


@pytest.mark.parametrize("pattern", ["registry.example.org:5000/*", "*", "!evil/**", "node:22", f"node@{D}", "??/*"])
def test_a_pattern_that_can_is_none(pattern: str) -> None:
    assert problem(pattern) is None
