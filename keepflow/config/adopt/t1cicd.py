"""A pipeline of T1-CICD, `.cicd-pipelines/*.yml`: stages in their order, jobs of a stage by their needs."""

from __future__ import annotations

from typing import Any

from keepflow.config.adopt._draft import Draft, Part
from keepflow.config.adopt._source import Node

TITLE = "T1-CICD (.cicd-pipelines/*.yml)"
_STAGES = ("build", "test", "doc", "deploy")  #: when the file names none
_CHECKOUT = "/app"  #: where every job found the code
_OF_JOBS = {"stage", "needs", "script", "artifacts", "image", "allow_failure"}


def fits(file: str, roots: list[Node]) -> bool:
    """Say whether a file is of this format."""
    jobs = roots[0].get("jobs")
    entries = [node for _, node in jobs.pairs or ()] if jobs else []
    return ".cicd-pipelines" in file or (
        bool(entries) and all(node.has("stage") and node.has("script") for node in entries)
    )


def adopt(roots: list[Node], draft: Draft) -> None:
    """Make one flow that people start, as they did there."""
    root = roots[0]
    draft.rest(root, "", {"name", "stages", "default", "jobs"})
    name = root.get("name")
    flow = draft.flow(root, name.text or "pipeline" if name else "pipeline", {"manual": True})
    default = root.get("default")
    if default is not None:
        draft.rest(default, "default", {"image"})
        if (box := draft.box(default.get("image"), "default.image", _CHECKOUT)) is not None:
            flow["image"] = box
    stages = _stages(root, draft)
    flow["stages"] = list(stages.values())
    flow["jobs"] = _jobs(root.get("jobs"), stages, draft)


def _stages(root: Node, draft: Draft) -> dict[str, str]:
    written = root.get("stages")
    found: dict[str, str] = {}
    for text in written.texts if written else _STAGES:
        if text not in found:
            found[text] = draft.free_name(written or root, "stage", text, found.values())
    return found


def _jobs(node: Node | None, stages: dict[str, str], draft: Draft) -> dict[str, Any]:
    entries = [(name, job) for name, job in (node.pairs or () if node else ()) if job.pairs is not None]
    names: dict[str, str] = {}
    for name, job in entries:
        names[name] = draft.free_name(job, "job", name, names.values())
    return {names[name]: _job(name, job, names, stages, draft) for name, job in entries}


def _job(name: str, node: Node, names: dict[str, str], stages: dict[str, str], draft: Draft) -> dict[str, Any]:
    stage, script, needs, image = (node.get(key) for key in ("stage", "script", "needs", "image"))
    job = Part(node, {})
    if stage is not None and stage.text is not None:
        job["stage"] = stages.get(stage.text, stage.text)
    if needs is not None:
        job["needs"] = [names.get(need, need) for need in needs.texts]
    if (box := draft.box(image, f"jobs.{name}.image", _CHECKOUT)) is not None:
        job["image"] = box
    allowed = node.get("allow_failure")
    if allowed is not None and allowed.true:
        job["allow_failure"] = True
        draft.lose(
            allowed,
            f"jobs.{name}.allow_failure",
            "carried over, but a run counts as succeeded when only such jobs failed",
        )
    job["steps"] = [{"run": draft.script(script.texts if script else ["true"])}]
    artifacts = node.get("artifacts")
    job["steps"] += draft.artifacts(artifacts, f"jobs.{name}.artifacts")
    draft.rest(node, f"jobs.{name}", _OF_JOBS)
    return job
