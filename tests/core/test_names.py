"""Names: one grammar for hosts, files and URLs, and refs exactly as git takes them."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepflow.core import names
from tests import hostile

legal = st.from_regex(names.NAME, fullmatch=True)


@pytest.mark.parametrize("text", ["a", "shop", "keepwork-dev", "0", "a" * 40])
def test_a_short_word_of_small_letters_digits_and_hyphens_is_a_name(text: str) -> None:
    assert names.is_name(text)


@pytest.mark.parametrize("text", ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "a b", "a\n", "ä", "a" * 41, "a\0"])
def test_anything_else_is_no_name(text: str) -> None:
    assert not names.is_name(text)


@pytest.mark.parametrize("branch", hostile.NAMES)
def test_a_slug_of_a_hostile_branch_is_a_name(branch: str) -> None:
    assert names.is_name(names.slug(branch))


@given(st.text())
def test_a_slug_of_any_text_is_a_name(text: str) -> None:
    assert names.is_name(names.slug(text))


@given(legal, legal, st.sampled_from(names.SLOTS))
def test_every_name_on_a_host_begins_with_service_and_instance(service: str, instance: str, slot: str) -> None:
    start = f"kf-{service}-{instance}-"
    made = [
        names.container(service, instance, slot),
        names.network(service, instance),
        names.volume(service, instance, "log"),
        names.keep_tag(service, instance, f"sha256:{'a' * 64}"),
    ]
    assert all(name.startswith(start) for name in made)


def test_a_keep_tag_is_a_tag_docker_takes() -> None:
    assert names.keep_tag("shop", "main", f"sha256:{'ab' * 32}") == "kf-shop-main-keep:abababababababababab"


@pytest.mark.parametrize("slot", names.SLOTS)
def test_the_other_slot_of_the_other_slot_is_the_slot(slot: str) -> None:
    assert names.other_slot(slot) != slot
    assert names.other_slot(names.other_slot(slot)) == slot


@pytest.mark.parametrize("text", ["a" * 40, "0" * 64])
def test_a_full_commit_id_is_a_sha(text: str) -> None:
    assert names.is_sha(text)


@pytest.mark.parametrize("text", ["", "a" * 39, "A" * 40, "g" * 40, "a" * 41, "a" * 40 + "\n", "-" * 40])
def test_anything_shorter_longer_or_other_is_no_sha(text: str) -> None:
    assert not names.is_sha(text)


@pytest.mark.parametrize("branch", hostile.NAMES)
def test_every_hostile_branch_that_git_takes_is_a_ref(branch: str) -> None:
    assert names.is_ref(f"refs/heads/{branch}") == _git_takes(f"refs/heads/{branch}")


_PARTS = (
    "refs/",
    "heads/",
    "a",
    ".",
    "..",
    "/",
    "@",
    "@{",
    ".lock",
    "~",
    "^",
    ":",
    "?",
    "*",
    "[",
    "\\",
    " ",
    "\t",
    "\x7f",
    "é",
    "-",
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(_PARTS), max_size=6).map("".join))
def test_a_ref_is_a_ref_exactly_when_git_says_so(tail: str) -> None:
    ref = f"refs/heads/{tail}"
    assert names.is_ref(ref) == _git_takes(ref)


@pytest.mark.parametrize(
    "text", ["", "dev", "refs/heads", "heads/dev", "refs/heads/\ud800", "refs/heads/" + "x" * 1100, "refs/heads/a\0"]
)
def test_what_is_no_full_ref_name_is_refused(text: str) -> None:
    assert not names.is_ref(text)


def _git_takes(ref: str) -> bool:
    return subprocess.run(["git", "check-ref-format", ref], timeout=10).returncode == 0


REFS = st.text(min_size=1, max_size=60).map(lambda text: f"refs/heads/{text}")


@given(REFS)
def test_r46_the_instance_of_any_branch_has_a_legal_name_that_fits_beside_its_environments(ref: str) -> None:
    instance = names.branch_instance(ref)
    assert names.is_name(instance)
    assert names.is_name(f"{'e' * names.BASE_LIMIT}-{instance}")


@given(REFS, REFS)
def test_r46_two_branches_have_two_instances(one: str, other: str) -> None:
    assert (names.branch_instance(one) == names.branch_instance(other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Feature/A", "feature/a"), ("a/b", "a-b"), ("a" * 80 + "1", "a" * 80 + "2"), ("ä", "ö"), ("x", "X")],
)
def test_r46_branches_that_read_alike_do_not_collide(one: str, other: str) -> None:
    assert names.branch_instance(f"refs/heads/{one}") != names.branch_instance(f"refs/heads/{other}")


def test_the_instance_of_a_branch_can_be_read() -> None:
    assert names.branch_instance("refs/heads/feature/shopping-cart").startswith("feature-shopping-")


@pytest.mark.parametrize(
    ("ref", "tag"),
    [
        ("refs/tags/v1.0", "v1.0"),
        ("refs/heads/dev", "dev"),
        ("refs/pull/7/head", "pr-7"),
        ("refs/merge-requests/7/head", "pr-7"),
        ("refs/tags/v1+b/2", "v1-b-2-8fac71"),
    ],
)
def test_r05_a_ref_has_a_legal_image_tag(ref: str, tag: str) -> None:
    assert names.image_tag(ref) == tag


@given(st.text(max_size=300), st.text(max_size=300))
def test_r05_whatever_a_tag_is_called_its_image_tag_is_legal_and_its_own(one: str, other: str) -> None:
    first, second = names.image_tag(f"refs/tags/{one}"), names.image_tag(f"refs/tags/{other}")
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", first)
    assert (first == second) is (one.encode(errors="replace") == other.encode(errors="replace"))
