"""What an image stands on is read from its layers, and only from those."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.bases import Layered, base_of, named

LAYERS = st.lists(st.sampled_from("abc"), max_size=4).map(tuple)
NAMES = st.lists(st.sampled_from(["shop:1", "shop:2", "node:22", f"node@sha256:{'a' * 64}", "debian:12"]), max_size=2)
IMAGES = st.builds(
    Layered, st.sampled_from("123456"), NAMES.map(tuple), LAYERS, st.sampled_from(["2026-01", "2026-02"])
)


@given(IMAGES, st.lists(IMAGES, max_size=6))
def test_a_base_is_another_named_image_below_and_none_is_deeper(image: Layered, others: list[Layered]) -> None:
    base = base_of(image, others)
    below = [one for one in others if one.layers and image.layers[: len(one.layers)] == one.layers]
    if base is None:
        shares = {name.partition(":")[0].partition("@")[0] for name in image.names}
        for one in below:
            known = {name.partition(":")[0].partition("@")[0] for name in one.names}
            assert one.image_id == image.image_id or not one.names or shares & known
    else:
        assert base in below
        assert base.image_id != image.image_id
        assert base_of(image, [base]) == base


def test_an_earlier_build_of_the_same_image_is_no_base() -> None:
    node = Layered("1", ("node:22",), ("a", "b"))
    earlier = Layered("2", ("shop:6", "registry.example.org:5000/shop:6"), ("a", "b", "c"))
    built = Layered("3", ("registry.example.org:5000/shop:7",), ("a", "b", "c", "d"))
    assert base_of(built, [earlier, node, built]) == node


def test_a_base_is_written_down_by_its_digest_in_a_registry_or_as_an_image_id() -> None:
    digest, image_id = "sha256:" + "d" * 64, "sha256:" + "1" * 64
    assert named(Layered(image_id, ("node:22", f"node@{digest}"), ("a",))) == ("node", digest)
    assert named(Layered(image_id, ("own:2", "base:1"), ("a",))) == ("image-id:base:1", image_id)
