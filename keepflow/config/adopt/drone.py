"""`.drone.yml`: one document for every pipeline."""

from __future__ import annotations

from keepflow.config.adopt._draft import Draft
from keepflow.config.adopt._source import Node
from keepflow.config.adopt._steps import pipeline, unknown

TITLE = "Drone (.drone.yml)"
_REASONS = {
    "depends_on": "every flow starts by its own events; put what depends on it into one flow",
    "volumes": "no flow file can mount a folder of the host",
    "platform": "agents are chosen by labels",
    "node": "agents are chosen by labels, in the words of your own agents",
    "clone": "the checkout is made by keepflow",
    "concurrency": "how two runs of a flow meet is said by its own `concurrency`: queue, latest or cancel",
    "image_pull_secrets": "logins to registries belong to the agent",
}


def fits(file: str, roots: list[Node]) -> bool:
    """Say whether a file is of this format."""
    return ".drone" in file or any(root.has("kind") and root.has("type", "steps", "trigger") for root in roots)


def adopt(roots: list[Node], draft: Draft) -> None:
    """Make a flow of every pipeline."""
    for root in roots:
        kind, name = root.get("kind"), root.get("name")
        if kind is not None and kind.text != "pipeline":
            draft.lose(root, f"kind: {kind.text}", "secrets are set with `keepflow secret`, never kept in a file")
            continue
        where = root.get("type")
        if where is not None and where.text not in ("docker", "exec", "kubernetes"):
            draft.lose(where, f"type: {where.text}", "its steps run in containers here")
        pipeline(root, draft, name.text or "default" if name else "default", root.get("trigger"), root.get("steps"))
        unknown(root, draft, {"kind", "type", "name", "trigger", "steps", "services"}, _REASONS)
