"""What a job said it built or pushed, resolved by engine and registry themselves, never by the script's word."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Protocol

from keepflow import errors
from keepflow.agent.logs import Log
from keepflow.core.bases import Layered, base_of, named
from keepflow.core.loopback import is_loopback
from keepflow.core.releases import ImageRef
from keepflow.core.text import quoted
from keepflow.ports import ImageFacts
from keepflow.tools.files import write_atomic
from keepflow.tools.registry import Registry
from keepflow.wire.messages import BaseImage, BuiltImage, Login, RunJob

log = Log(__name__)

_REMEMBERED = 2000  #: images


class Engine(Protocol):
    """The part of a target that knows images."""

    def image(self, reference: str) -> ImageFacts | None:
        """Return the facts of an image on disk, or None."""

    def layered(self) -> Sequence[Layered]:
        """List the images that have a name, each with its layers."""


#: (login, repository path, tag or digest) → the digest the registry answers, None for none; raises RegistryError.
AskRegistry = Callable[[Login, str, str], str | None]


class MadeHere:
    """The image ids that jobs of this agent built, on disk: an order for a local image is obeyed only for these."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._ids = path.read_text().split() if path.exists() else []

    def add(self, image_ids: Iterable[str]) -> None:
        """Remember images."""
        with self._lock:
            fresh = [image_id for image_id in image_ids if image_id not in self._ids]
            if fresh:
                self._ids = [*self._ids, *fresh][-_REMEMBERED:]
                write_atomic(self._path, "".join(f"{image_id}\n" for image_id in self._ids).encode(), 0o600)

    def __contains__(self, image_id: str) -> bool:
        with self._lock:
            return image_id in self._ids


class Images:
    """Resolves `image=REF` and `pushed=REF`; anything that cannot be proven fails the job, with the reason."""

    def __init__(self, engine: Engine, made: MadeHere, ask_registry: AskRegistry) -> None:
        self._engine = engine
        self._made = made
        self._ask_registry = ask_registry

    def resolve(self, told: Sequence[tuple[str, str]], order: RunJob, *, with_engine: bool) -> tuple[BuiltImage, ...]:
        """Return the images of a job, each once; raises Refused, RegistryError, Unavailable."""
        found: dict[tuple[str, str], BuiltImage] = {}
        for key, text in told:
            if key not in ("image", "pushed"):
                continue
            reference = self._allowed(key, text, order, with_engine)
            image = self._local(text, reference) if key == "image" else self._pushed(text, reference, order)
            found[(image.origin, image.repository)] = image
        self._made.add(image.image_id for image in found.values())
        return self._with_bases(tuple(found.values()))

    def _with_bases(self, images: tuple[BuiltImage, ...]) -> tuple[BuiltImage, ...]:
        """Say what each image stands on, as far as the engine knows; that it cannot be told fails no job."""
        if not images:
            return ()
        try:
            known = {one.image_id: one for one in self._engine.layered()}
        except errors.KeepflowError as error:
            log.warning("nobody can tell what images stand on", reason=error.message)
            return images
        return tuple(_with_base(image, known) for image in images)

    def _allowed(self, key: str, text: str, order: RunJob, with_engine: bool) -> ImageRef:
        if not with_engine:
            raise errors.Refused(
                f"{key}={quoted(text)}: this flow may not use the engine on this host (docker_for in agent.yml), "
                "so it cannot have made an image",
                code="no-engine",
            )
        try:
            reference = ImageRef.parse(text)
        except ValueError as error:
            raise errors.Refused(f"{key}=… is {error}", code="bad-image") from None
        if not reference.is_of(order.images):
            allowed = ", ".join(order.images) or "none"
            raise errors.Refused(
                f"{key}={quoted(text)}: this project may release only these images: {allowed}", code="image-not-allowed"
            )
        return reference

    def _local(self, text: str, reference: ImageRef) -> BuiltImage:
        facts = self._facts("image", text)
        return BuiltImage(origin="local", reference=text, repository=reference.repository, image_id=facts.image_id)

    def _pushed(self, text: str, reference: ImageRef, order: RunJob) -> BuiltImage:
        login = next((each for each in order.logins if each.address == reference.domain), None)
        if login is None or reference.path not in login.repositories:
            raise errors.Refused(
                f"pushed={quoted(text)}: this job was lent no login for {reference.repository}",
                code="image-not-allowed",
            )
        digest = self._ask_registry(login, reference.path, reference.digest or reference.tag or "latest")
        if digest is None:
            raise errors.Refused(f"pushed={quoted(text)}: the registry has no such image", code="no-image")
        facts = self._facts("pushed", text)
        if reference.at(digest) not in facts.repo_digests:
            raise errors.Refused(
                f"pushed={quoted(text)}: the registry holds {digest}, which is not the image of that name here; "
                "was it pushed again by somebody else, or not pushed at all?",
                code="digest-mismatch",
            )
        return BuiltImage(
            origin="registry", reference=text, repository=reference.repository, image_id=facts.image_id, digest=digest
        )

    def _facts(self, key: str, text: str) -> ImageFacts:
        facts = self._engine.image(text)
        if facts is None:
            raise errors.Refused(f"{key}={quoted(text)}: the engine on this host has no such image", code="no-image")
        return facts


def _with_base(image: BuiltImage, known: Mapping[str, Layered]) -> BuiltImage:
    built = known.get(image.image_id)
    base = base_of(built, known.values()) if built else None
    if base is None:
        return image
    reference, digest = named(base)
    return image.model_copy(update={"bases": (BaseImage(reference=reference, digest=digest),)})


def ask_registry(login: Login, repository: str, reference: str) -> str | None:
    """Ask a registry with a lent login what a tag stands for; fits `AskRegistry`.

    Without a CA of its own a registry on this machine may speak plain HTTP, as the engine allows it too.
    """
    with NamedTemporaryFile("w", suffix=".pem") as authority:
        authority.write(login.ca_pem)
        authority.flush()
        ca_file = Path(authority.name) if login.ca_pem else None
        try:
            return Registry(login.address, login.username, login.password, ca_file).digest(repository, reference)
        except errors.RegistryError:
            if ca_file or not _is_this_machine(login.address):
                raise
        return Registry(login.address, login.username, login.password, plain_http=True).digest(repository, reference)


def _is_this_machine(address: str) -> bool:
    return is_loopback(address.rpartition(":")[0] if ":" in address else address)
