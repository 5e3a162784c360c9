"""What an image stands on, found out by its layers: an engine does not write down which image a build began with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from keepflow.core.releases import ImageRef


@dataclass(frozen=True, slots=True)
class Layered:
    """An image of an engine: all names it has (`repository:tag`, `repository@sha256:…`), its layers, bottom first."""

    image_id: str
    names: tuple[str, ...]
    layers: tuple[str, ...]
    created: str = ""  #: RFC 3339


def base_of(image: Layered, others: Iterable[Layered]) -> Layered | None:
    """Return the named image whose layers the image begins with: the one with the most of them, then the oldest.

    An image that has a repository in common with it is an earlier build of the same and no base. Only the last stage of
    a build leaves layers in what it makes.
    """
    own = {_repository(name) for name in image.names}
    fitting = [
        other
        for other in others
        if other.layers
        and other.image_id != image.image_id
        and image.layers[: len(other.layers)] == other.layers
        and other.names
        and not own & {_repository(name) for name in other.names}
    ]
    return min(fitting, key=lambda other: (-len(other.layers), other.created, other.image_id), default=None)


def named(base: Layered) -> tuple[str, str]:
    """Return how a base is written down: its name and digest in a registry, or `image-id:NAME` and its image id."""
    digests = sorted(name for name in base.names if "@" in name)
    if digests:
        name, _, digest = digests[0].partition("@")
        return name, digest
    return f"image-id:{min(base.names)}", base.image_id


def _repository(name: str) -> str:
    try:
        return ImageRef.parse(name).repository
    except ValueError:
        return name
