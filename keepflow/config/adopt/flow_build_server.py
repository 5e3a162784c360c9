"""A workflow of flow-build-server: jobs as compose files, and for each which jobs follow a success or a failure.

Its key `job` is repeated in one mapping, so a loader that keeps the last of equal keys would lose all jobs but one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keepflow.config.adopt._draft import Draft, Part
from keepflow.config.adopt._source import Node

TITLE = "flow-build-server (workflows:)"
_OF_JOBS = {"name", "action", "success", "fail"}


def fits(_file: str, roots: list[Node]) -> bool:
    """Say whether a file is of this format."""
    return roots[0].has("workflows", "workflow")


def adopt(roots: list[Node], draft: Draft) -> None:
    """Make a flow of every workflow; the file names no trigger, so people start it."""
    draft.rest(roots[0], "", {"workflows", "workflow"})
    for workflow in _workflows(roots[0]):
        name = workflow.get("name")
        flow = draft.flow(workflow, name.text or "workflow" if name else "workflow", {"manual": True})
        draft.rest(workflow, "workflow", {"name", "jobs"})
        flow["jobs"] = _graph(list(_jobs(workflow)), draft)


def _workflows(root: Node) -> Iterator[Node]:
    for key, node in root.pairs or ():
        for entry in node.each if key in ("workflows", "workflow") else ():
            inner = [value for name, value in entry.pairs or () if name == "workflow"]
            yield from inner or [entry]


def _jobs(workflow: Node) -> Iterator[tuple[str, Node]]:
    """Return every job with its name: under the key `job` again and again, by name, or in a list."""
    for key, node in workflow.pairs or ():
        if key != "jobs":
            continue
        entries = [pair for one in node.each for pair in one.pairs or ()] if not node.items else list(_listed(node))
        for name, job in entries:
            own = job.get("name")
            yield (own.text or name if own else name), job


def _listed(node: Node) -> Iterator[tuple[str, Node]]:
    for one in node.items or ():
        inner = [pair for pair in one.pairs or () if pair[0] == "job"]
        yield from inner or [("job", one)]


def _graph(jobs: list[tuple[str, Node]], draft: Draft) -> dict[str, Any]:
    names: dict[str, str] = {}
    for name, node in jobs:
        if name in names:
            draft.lose(node, f"job {name}", "a second job of that name; the first one is kept")
        else:
            names[name] = draft.free_name(node, "job", name, names.values())
    first = next(iter(names), "")
    followers = {text for _, node in jobs for key in ("success", "fail") for text in _texts(node, key)}
    made: dict[str, Any] = {}
    for name, node in jobs:
        if names[name] in made:
            continue
        if name != first and name not in followers:
            draft.lose(node, f"job {name}", "no job names it under success or fail, so it never ran there, either")
        else:
            made[names[name]] = _job(name, node, names, draft)
    return made


def _job(name: str, node: Node, names: dict[str, str], draft: Draft) -> dict[str, Any]:
    job = Part(node, {"steps": [_action(name, node, draft)]})
    for key, ours in (("success", "success"), ("fail", "failure")):
        known = [names[text] for text in _texts(node, key) if text in names]
        for text in _texts(node, key):
            if text not in names:
                draft.lose(node, f"job {name}.{key}", f"there is no job {text}")
        if known:
            job[ours] = known
    draft.rest(node, f"job {name}", _OF_JOBS)
    return job


def _action(name: str, node: Node, draft: Draft) -> dict[str, Any]:
    action = node.get("action")
    file = action.text if action else None
    if not file:
        draft.lose(node, f"job {name}", "it names no compose file under action, so it does nothing")
        return {"run": "true\n"}
    return {"compose": file}


def _texts(node: Node, key: str) -> list[str]:
    found = node.get(key)
    return found.texts if found else []
