"""Releases: what a run produced to be run elsewhere, and the grammar of image references."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_PATH = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
#: github.com/distribution/reference: name[:tag][@digest]
_REFERENCE = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_PATH})(?::(?P<tag>[\w][\w.-]{{0,127}}))?(?:@(?P<digest>sha256:[0-9a-f]{{64}}))?"
)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A parsed image reference. `domain` is "" for a name without a registry address."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> ImageRef:
        """Parse a reference; a first part counts as a registry address only with a dot, a colon, or `localhost`.

        Raises ValueError for anything outside the grammar.
        """
        match = _REFERENCE.fullmatch(text) if len(text) <= 512 else None
        if match is None:
            raise ValueError(f"not an image reference: {text[:80]!r}")
        domain, path = match["domain"] or "", match["path"]
        if domain and not ("." in domain or ":" in domain or domain == "localhost"):
            domain, path = "", f"{domain}/{path}"
            if re.fullmatch(_PATH, path) is None:
                raise ValueError(f"not an image reference: {text[:80]!r}")
        return cls(domain, path, match["tag"], match["digest"])

    @property
    def repository(self) -> str:
        """The reference without tag and digest: `registry.example.org:5000/keepwork`."""
        return f"{self.domain}/{self.path}" if self.domain else self.path

    def at(self, digest: str) -> str:
        """Return the reference of exactly one image of this repository."""
        return f"{self.repository}@{digest}"

    def is_of(self, names: Iterable[str]) -> bool:
        """Say whether a project with these image names may release this.

        At a registry it must be one of them. On an engine alone it may also lie below one: `keepwork` stands for
        `keepwork/dev` and `keepwork/test` as well, the names that builds of different environments do not share.
        """
        return any(self.path == name or (not self.domain and self.path.startswith(f"{name}/")) for name in names)


def is_digest(text: str) -> bool:
    """Say whether a text is a full sha256 digest."""
    return DIGEST.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Release:
    """An image identity and where it may be deployed from.

    `origin` is `registry` (promotable; `digest` is the manifest digest the registry answered) or `local:<agent>` (only
    that agent has it; never promotable; `digest` is None). `image_id` is the engine's config digest.
    """

    origin: str
    image_id: str
    repository: str
    digest: str | None = None

    @property
    def promotable(self) -> bool:
        """Only what a registry holds can be deployed by another agent."""
        return self.origin == "registry" and self.digest is not None

    @property
    def identity(self) -> str:
        """What is compared, labelled and shown: the digest of a registry release, else the image id."""
        return self.digest or self.image_id

    @property
    def local_agent(self) -> str | None:
        """The only agent that can deploy a local release."""
        return self.origin.removeprefix("local:") if self.origin.startswith("local:") else None
