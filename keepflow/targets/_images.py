"""The images of a Docker engine: looked at, pulled by digest, kept from prunes, let go of."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from keepflow.core.bases import Layered
from keepflow.errors import DeployFailed
from keepflow.ports import ImageFacts, RegistryLogin
from keepflow.targets._line import Line, unless_missing, unless_refused, words
from keepflow.targets._pulling import follow


class Images(Line):
    """What a target does with images."""

    def free(self) -> int | None:
        """Return the bytes that are free where the engine keeps its images, None when that is not on this machine."""
        with self._engine() as engine:
            root = str(engine.info().get("DockerRootDir") or "")
        try:
            return shutil.disk_usage(root).free if root else None
        except OSError:
            return None

    def image(self, reference: str) -> ImageFacts | None:
        """Return the facts of an image on disk (by id, `repo@digest` or tag), or None."""
        from docker.errors import NotFound

        with self._engine() as engine:
            try:
                found = engine.inspect_image(reference)  # type: ignore[no-untyped-call]  # the stub forgot it
            except NotFound:
                return None
        return ImageFacts(found["Id"], tuple(found.get("RepoDigests") or ()), int(found.get("Size") or 0))

    def layered(self) -> list[Layered]:
        """List the images that have a name, each with its layers; one that vanishes meanwhile is left out."""
        from docker.errors import NotFound

        found = []
        with self._engine() as engine:
            for image_id in dict.fromkeys(one["Id"] for one in engine.images()):
                try:
                    seen = engine.inspect_image(image_id)  # type: ignore[no-untyped-call]  # the stub forgot it
                except NotFound:
                    continue
                known = (*(seen.get("RepoTags") or ()), *(seen.get("RepoDigests") or ()))
                layers = tuple((seen.get("RootFS") or {}).get("Layers") or ())
                found.append(Layered(image_id, known, layers, str(seen.get("Created") or "")))
        return [one for one in found if one.names]

    def pull(self, repository: str, digest: str, login: RegistryLogin | None, say: Callable[[str], None]) -> ImageFacts:
        """Pull exactly this digest and return what is on disk then.

        Raises DeployFailed `image-missing`, `pull-failed` or `digest-mismatch`.
        """
        from docker.errors import APIError, NotFound

        reference = f"{repository}@{digest}"
        account = {"username": login.username, "password": login.password} if login else {}
        with self._engine() as engine:
            try:
                # An empty account, not None: with None the SDK would read the login of whoever runs the agent.
                lines = engine.pull(repository, tag=digest, stream=True, decode=True, auth_config=account)
                follow(lines, reference, say)
            except NotFound as error:
                raise DeployFailed(f"{reference}: the registry does not have it", code="image-missing") from error
            except APIError as error:
                raise DeployFailed(f"{reference} cannot be pulled: {words(error)}", code="pull-failed") from error
        facts = self.image(reference)
        if facts is None or reference not in facts.repo_digests:
            raise DeployFailed(
                f"{reference} was pulled, but the engine does not know it as that", code="digest-mismatch"
            )
        return facts

    def keep(self, image_id: str, tag: str) -> None:
        """Tag an image locally so that no prune removes it; raises DeployFailed `image-missing`."""
        from docker.errors import NotFound

        repository, _, name = tag.rpartition(":")
        with self._engine() as engine:
            try:
                engine.tag(image_id, repository, name)
            except NotFound as error:
                raise DeployFailed(f"the image {image_id} is not on this engine", code="image-missing") from error

    def kept(self, repository: str) -> list[tuple[str, str]]:
        """List (tag, image id) of the keep-tags of one repository name."""
        with self._engine() as engine:
            images = engine.images(name=repository)
        tags = [(tag, image["Id"]) for image in images for tag in image.get("RepoTags") or ()]
        return sorted((tag, image_id) for tag, image_id in tags if tag.startswith(f"{repository}:"))

    def drop(self, reference: str) -> None:
        """Remove one keep-tag, and the image when nothing else names or uses it; gone already is fine."""
        found = self.image(reference)
        if found is None:
            return
        with self._engine() as engine:
            if unless_refused(lambda: engine.remove_image(reference)) and not self._tags(found.image_id):
                unless_refused(lambda: engine.remove_image(found.image_id))

    def _tags(self, image_id: str) -> list[str]:
        with self._engine() as engine:
            found = unless_missing(lambda: engine.inspect_image(image_id))  # type: ignore[no-untyped-call]  # see above
        return (found or {}).get("RepoTags") or []
