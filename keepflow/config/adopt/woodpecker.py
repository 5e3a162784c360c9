"""`.woodpecker.yml`: steps in containers, as a list or by name."""

from __future__ import annotations

from keepflow.config.adopt._draft import Draft
from keepflow.config.adopt._source import Node
from keepflow.config.adopt._steps import pipeline, unknown

TITLE = "Woodpecker (.woodpecker.yml)"
_REASONS = {
    "matrix": "a matrix of whole pipelines",
    "labels": "agents are chosen by labels of a job, in the words of your own agents",
    "depends_on": "every flow starts by its own events; put what depends on it into one flow",
    "clone": "the checkout is made by keepflow",
    "skip_clone": "the checkout is made by keepflow",
}


def fits(file: str, roots: list[Node]) -> bool:
    """Say whether a file is of this format."""
    root = roots[0]
    return ".woodpecker" in file or (root.has("steps", "pipeline") and not root.has("kind", "flows", "jobs"))


def adopt(roots: list[Node], draft: Draft) -> None:
    """Make one flow."""
    root = roots[0]
    conditions = root.get("when") or _branches(root)
    pipeline(root, draft, "pipeline", conditions, root.get("steps") or root.get("pipeline"))
    unknown(root, draft, {"steps", "pipeline", "services", "when", "branches", "variables"}, _REASONS)


def _branches(root: Node) -> Node | None:
    """Read the older way to name branches as a condition."""
    branches = root.get("branches")
    return Node(branches.line, pairs=(("branch", branches),)) if branches else None
