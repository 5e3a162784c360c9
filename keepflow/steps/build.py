"""`build:` an image from the checkout, by the `docker` command, so that the engine's own builder is used in full."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from keepflow.config.fields import EnvName, Interpolated, Line, Model, RelativePath
from keepflow.core.text import quoted
from keepflow.errors import UsageError
from keepflow.ports import StepContext
from keepflow.steps._docker import call, filled, need_engine, output, reference

DEFAULT_TAG = "${KEEPFLOW_IMAGE}:b${BUILD_NUMBER}"


class Spec(Model):
    """What is built and what it is called. Paths are inside the repository; `${NAME}` works in `tag` and `args`."""

    context: RelativePath = "."  #: folder inside the repository
    dockerfile: RelativePath | None = None  #: file inside the repository; without one `Dockerfile` in the context
    target: Line | None = None  #: stage of the Dockerfile; without one the last
    args: dict[EnvName, Interpolated] = Field(default_factory=dict)  #: build arguments; `${NAME}` works
    tag: Interpolated | None = None  #: name; `${NAME}` works; without one `image`, `:b<BUILD_NUMBER>`


def shorthand(value: str | None) -> dict[str, Any]:
    """Read `build: .` and a bare `build:`."""
    return {} if value is None else {"context": value}


def title(spec: Spec) -> str:
    """Return what people see in a list."""
    return "build" if spec.context == "." else f"build {spec.context}"


def perform(spec: Spec, context: StepContext) -> int:
    """Build the image and say `image=REF`; raises UsageError when the image has no usable name.

    Refused when the job may not use the engine.
    """
    need_engine(context)
    name = reference(spec.tag or _default_tag(context), context)
    if name.digest:
        raise UsageError("an image is built under a tag, not a digest")
    text = f"{name.repository}:{name.tag or 'latest'}"
    code = call(build_argv(spec, text, {key: filled(value, context) for key, value in spec.args.items()}), context)
    return code or output(context, "image", text)


def build_argv(spec: Spec, tag: str, args: dict[str, str]) -> list[str]:
    """Return the command that builds the image."""
    command = ["docker", "build", "--tag", tag]
    if spec.dockerfile:
        command += ["--file", spec.dockerfile]
    if spec.target:
        command += ["--target", spec.target]
    for name, value in args.items():
        command += ["--build-arg", f"{name}={value}"]
    return [*command, "--", spec.context]


def _default_tag(context: StepContext) -> str:
    if not context.env.get("KEEPFLOW_IMAGE"):
        example = quoted("image: shop")
        raise UsageError(f"the image has no name: write {example} at the top of the flow file, or a tag for this step")
    return DEFAULT_TAG
