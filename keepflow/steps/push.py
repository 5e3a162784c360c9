"""`push:` an image to a registry, with the login the master lent to this job and for the names it allows."""

from __future__ import annotations

from typing import Any

from keepflow.config.fields import Interpolated, Model
from keepflow.core.releases import ImageRef
from keepflow.errors import Refused, UsageError
from keepflow.ports import StepContext
from keepflow.steps._docker import call, last_output, need_engine, output, reference


class Spec(Model):
    """Which image goes where; `${NAME}` works in both."""

    image: Interpolated | None = None  #: a local image; `${NAME}` works; without one the one built last in this job
    #: where it goes; `${NAME}` works; without an address the master's registry, without a name those of the image
    to: Interpolated | None = None


def shorthand(value: str | None) -> dict[str, Any]:
    """Read `push: registry.example.org:5000/shop:b7` and a bare `push:`."""
    return {} if value is None else {"to": value}


def title(spec: Spec) -> str:
    """Return what people see in a list."""
    return f"push {spec.to or spec.image or ''}".rstrip()


def perform(spec: Spec, context: StepContext) -> int:
    """Tag and push the image and say `pushed=REF`.

    The login itself reaches the `docker` command by the job's own `DOCKER_CONFIG`. Raises UsageError when there is
    nothing to push or the names are no image references, Refused when no login for that place was lent to this job,
    or it may not use the engine.
    """
    need_engine(context)
    source = _source(spec, context)
    target = _target(spec, source, context)
    _check_lent(target, context)
    text = f"{target.repository}:{target.tag or source.tag or 'latest'}"
    code = call(["docker", "tag", "--", _full(source), text], context) or call(["docker", "push", "--", text], context)
    return code or output(context, "pushed", text)


def _source(spec: Spec, context: StepContext) -> ImageRef:
    named = spec.image or last_output(context, "image")
    if named is None:
        raise UsageError("there is nothing to push: no step before this one built an image (or said image=… )")
    return reference(named, context) if spec.image else _said(named)


def _said(named: str) -> ImageRef:
    try:
        return ImageRef.parse(named)
    except ValueError as error:
        raise UsageError(f"a step said image=…, but that is {error}") from None


def _target(spec: Spec, source: ImageRef, context: StepContext) -> ImageRef:
    registry = context.env.get("KEEPFLOW_REGISTRY", "")
    target = reference(spec.to, context) if spec.to else ImageRef("", source.path, source.tag)
    if target.digest:
        raise UsageError("an image is pushed under a tag; its digest is what the registry answers")
    if not target.domain:
        if not registry:
            raise Refused("no registry is known to this job: the master's file names them", code="no-registry")
        target = ImageRef(registry, target.path, target.tag)
    return target


def _check_lent(target: ImageRef, context: StepContext) -> None:
    login = context.registries.get(target.domain)
    if login is None:
        sentence = (
            f"no login for {target.domain} is lent to this job: only branches that reach an environment may push, "
            "and only to registries the master knows"
        )
        raise Refused(sentence, code="no-login")
    if target.path not in login.repositories:
        allowed = ", ".join(login.repositories) or "none"
        raise Refused(f"this project may not push to {target.repository}; allowed names: {allowed}", code="not-allowed")


def _full(image: ImageRef) -> str:
    if image.digest:
        return image.at(image.digest)
    return f"{image.repository}:{image.tag or 'latest'}"
