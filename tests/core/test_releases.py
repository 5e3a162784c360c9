"""Image references: read by docker's own grammar, refused outside it, never a crash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.releases import ImageRef, Release, is_digest

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("keepwork", ("", "keepwork", None, None)),
        ("keepwork:b7", ("", "keepwork", "b7", None)),
        ("team/shop", ("", "team/shop", None, None)),
        ("localhost/shop", ("localhost", "shop", None, None)),
        ("localhost:5000/shop:v1", ("localhost:5000", "shop", "v1", None)),
        ("registry.example.org:5000/a/b-c__d.e:V_1.2-x", ("registry.example.org:5000", "a/b-c__d.e", "V_1.2-x", None)),
        (f"registry.example.org/shop@{DIGEST}", ("registry.example.org", "shop", None, DIGEST)),
        (f"shop:b1@{DIGEST}", ("", "shop", "b1", DIGEST)),
        ("[::1]:5000/shop", ("[::1]:5000", "shop", None, None)),
    ],
)
def test_a_reference_is_read_into_its_parts(text: str, parts: tuple[str | None, ...]) -> None:
    found = ImageRef.parse(text)
    assert (found.domain, found.path, found.tag, found.digest) == parts


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-v",
        "--privileged",
        "Shop",
        "shop:",
        "shop:-x",
        "shop:a b",
        "shop@sha256:abc",
        "shop@md5:" + "a" * 32,
        "a//b",
        "/a",
        "a/",
        "a..b",
        "a___b",
        "http://x/y",
        "shop\n",
        "shop:b1\n",
        "shop;id",
        "$(id)",
        "a:b:c",
        "Team/shop",
        "x" * 600,
        f"shop@{DIGEST}x",
        "shop:" + "t" * 129,
        "régistry/shop",
    ],
)
def test_what_docker_would_refuse_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an image reference"):
        ImageRef.parse(text)


@given(st.text(max_size=600))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = ImageRef.parse(text)
    except ValueError:
        return
    assert not text.startswith("-")
    again = found.repository + (f":{found.tag}" if found.tag else "") + (f"@{found.digest}" if found.digest else "")
    assert again == text


def test_a_pinned_reference_names_the_digest_and_drops_the_tag() -> None:
    assert ImageRef.parse("r.example.org/shop:latest").at(DIGEST) == f"r.example.org/shop@{DIGEST}"


def test_only_what_a_registry_holds_is_promotable() -> None:
    pushed = Release("registry", DIGEST, "r.example.org/shop", DIGEST)
    local = Release("local:build-1", DIGEST, "shop")
    assert pushed.promotable
    assert pushed.local_agent is None
    assert not local.promotable
    assert local.local_agent == "build-1"
    assert not Release("registry", DIGEST, "shop").promotable


def test_the_identity_is_the_digest_and_else_the_image_id() -> None:
    assert Release("registry", "sha256:" + "1" * 64, "shop", DIGEST).identity == DIGEST
    assert Release("local:a", "sha256:" + "1" * 64, "shop").identity == "sha256:" + "1" * 64


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "a" * 63, "sha256:" + "A" * 64, "sha512:" + "a" * 64, DIGEST + "\n"]
)
def test_a_digest_is_whole_or_none(text: str) -> None:
    assert not is_digest(text)
    assert is_digest(DIGEST)


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("shop", True),
        ("shop:b1", True),
        ("shop/dev:b1", True),
        ("shop-other/dev", False),
        ("shopx", False),
        ("other/shop", False),
        ("localhost:5000/shop:b1", True),
        ("localhost:5000/shop/dev:b1", False),
        ("localhost:5000/other", False),
    ],
)
def test_a_project_may_release_its_names_and_on_an_engine_what_lies_below_them(text: str, may: bool) -> None:
    assert ImageRef.parse(text).is_of(("cart", "shop")) is may
    assert not ImageRef.parse(text).is_of(())
