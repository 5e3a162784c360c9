"""A simple `.gitlab-ci.yml`: jobs in stages, with their image, services, variables and needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keepflow.config.adopt._draft import Draft, Part
from keepflow.config.adopt._source import Node

TITLE = "GitLab CI (.gitlab-ci.yml)"
_STAGES = (".pre", "build", "test", "deploy", ".post")
_GLOBAL = {"stages", "default", "variables", "image", "services", "before_script", "after_script", "workflow"}
_NO_JOB = _GLOBAL | {"include", "cache", "pages", "spec"}
_INHERITED = ("image", "services", "before_script", "after_script")
_OF_JOBS = {
    "stage", "script", "needs", "image", "services", "variables", "before_script", "after_script", "artifacts",
    "allow_failure", "when", "timeout", "retry", "extends", "only", "except", "rules",
}  # fmt: skip
_REASONS = {
    "include": "a file from elsewhere: adopt it by itself",
    "cache": "the checkout of a project is kept between runs, and so is the home of its scripts",
    "tags": "agents are chosen by labels, in the words of your own agents",
    "parallel": "write the jobs out, or see `matrix`",
    "environment": "a release goes to an environment by `deploy: NAME`",
    "dependencies": "jobs of a run share one workspace",
    "coverage": "nothing reads coverage out of logs",
    "trigger": "a flow starts by its own events",
    "resource_group": "how two runs of a flow meet is said by its `concurrency`",
    "interruptible": "how two runs of a flow meet is said by its `concurrency`",
    "release": "write it as a script",
    "pages": "write it as a script",
    "secrets": "secrets are set with `keepflow secret` and named by a step",
    "id_tokens": "no token of the forge is made here",
    "inherit": "what a job inherits was written out",
}
_SOME_EVENTS = "it ran only on some events: give it a flow of its own, here it would always run"
_WHEN = {"on_failure": "failure", "always": "always"}


def fits(file: str, roots: list[Node]) -> bool:
    """Say whether a file is of this format."""
    return "gitlab-ci" in file or any(node.has("script") for _, node in roots[0].pairs or ())


def adopt(roots: list[Node], draft: Draft) -> None:
    """Make one flow that runs on every push."""
    root = roots[0]
    templates = {name: node for name, node in root.pairs or () if node.pairs is not None}
    jobs = [
        (name, _extended(node, templates, draft, name))
        for name, node in templates.items()
        if name not in _NO_JOB and not name.startswith(".")
    ]
    on, taken = _events(jobs, draft)
    flow = draft.flow(root, "pipeline", on)
    defaults = _defaults(root, draft)
    stages = _stages(root, taken, draft)
    flow["stages"] = list(stages.values())
    names: dict[str, str] = {}
    for name, node in taken:
        names[name] = draft.free_name(node, "job", name, names.values())
    flow["jobs"] = {names[name]: _job(name, node, names, stages, defaults, draft) for name, node in taken}
    ignored = {key for key, node in root.pairs or () if node.pairs is not None and key not in _NO_JOB}
    draft.rest(root, "", ignored | (_GLOBAL - {"workflow"}), {**_REASONS, "workflow": _SOME_EVENTS})


def _extended(node: Node, templates: Mapping[str, Node], draft: Draft, name: str, depth: int = 0) -> Node:
    """Write out what a job takes from its templates."""
    wanted = node.get("extends")
    pairs: dict[str, Node] = {}
    for text in wanted.texts if wanted else []:
        template = templates.get(text)
        if template is None or depth > 10:
            draft.lose(wanted or node, f"{name}.extends: {text}", "there is no such template in this file")
            continue
        pairs |= dict(_extended(template, templates, draft, text, depth + 1).pairs or ())
    return Node(node.line, pairs=tuple({**pairs, **dict(node.pairs or ())}.items()))


def _events(jobs: list[tuple[str, Node]], draft: Draft) -> tuple[dict[str, Any], list[tuple[str, Node]]]:
    """Return what starts the flow, and the jobs that run then: conditions count when all jobs have the same."""
    running = [(name, node) for name, node in jobs if _runs(name, node, draft)]
    found = {name: _only(node) for name, node in running}
    same = [on for on in found.values() if on]
    if running and len(same) == len(running) and all(on == same[0] for on in same):
        return same[0], running
    taken = []
    for name, node in running:
        if found[name] == {}:
            taken.append((name, node))
        else:
            draft.lose(node, name, _SOME_EVENTS)
    return {"push": "**", "manual": True}, taken


def _only(node: Node) -> dict[str, Any] | None:
    """Return the events of a job: {} for any, None for what cannot be said in `on:`."""
    only = node.get("only")
    if node.has("rules", "except"):
        return None
    if only is None:
        return {}
    refs = only.get("refs") if only.pairs is not None else only
    if refs is None or (only.pairs is not None and len(only.pairs) > 1):
        return None
    on: dict[str, Any] = {}
    branches: list[str] = []
    for text in refs.texts:
        if text in ("branches", "pushes", "tags", "merge_requests", "web"):
            word = {
                "branches": "push",
                "pushes": "push",
                "tags": "tag",
                "merge_requests": "pull_request",
                "web": "manual",
            }
            on[word[text]] = "**" if text not in ("merge_requests", "web") else True
        elif text.startswith("/"):
            return None  # a regular expression
        else:
            branches.append(text)
    return {**on, **({"push": branches} if branches else {})}


def _runs(name: str, node: Node, draft: Draft) -> bool:
    """Say whether a job runs by itself; one that does not is noted."""
    when = node.get("when")
    if when is not None and when.text in ("manual", "delayed", "never"):
        draft.lose(when, f"{name}.when: {when.text}", "a job that a person starts is a flow of its own, `on: manual`")
        return False
    if not node.has("script"):
        draft.lose(node, name, "it has no script")
        return False
    return True


def _defaults(root: Node, draft: Draft) -> dict[str, Node]:
    """Return what every job has that says nothing of its own."""
    default = root.get("default") or Node(root.line, pairs=())
    found = {key: node for key in _INHERITED if (node := default.get(key) or root.get(key)) is not None}
    draft.rest(default, "default", set(_INHERITED), _REASONS)
    if (variables := root.get("variables")) is not None:
        found["variables"] = variables
    return found


def _stages(root: Node, jobs: list[tuple[str, Node]], draft: Draft) -> dict[str, str]:
    """Return the stages that hold jobs, in their order, with their names here."""
    written = root.get("stages")
    order = [".pre", *written.texts, ".post"] if written else list(_STAGES)
    used = {_stage(node) for _, node in jobs}
    found: dict[str, str] = {}
    for text in dict.fromkeys([*order, *sorted(used)]):
        if text in used:
            found[text] = draft.free_name(written or root, "stage", text, found.values())
    return found


def _stage(node: Node) -> str:
    found = node.get("stage")
    return found.text or "test" if found else "test"


def _job(
    name: str,
    node: Node,
    names: Mapping[str, str],
    stages: Mapping[str, str],
    defaults: Mapping[str, Node],
    draft: Draft,
) -> dict[str, Any]:
    job = Part(node, {"stage": stages[_stage(node)]})
    if needs := _needs(name, node, names, draft):
        job["needs"] = needs
    when = node.get("when")
    if when is not None and when.text in _WHEN:
        job["when"] = _WHEN[when.text]
    allowed = node.get("allow_failure")
    if allowed is not None and (allowed.true or allowed.pairs is not None):
        job["allow_failure"] = True
        if allowed.pairs is not None:
            draft.lose(allowed, f"{name}.allow_failure", "exit codes: here any failure of the job is allowed")
    if (box := draft.box(node.get("image") or defaults.get("image"), f"{name}.image")) is not None:
        job["image"] = box
    if services := node.get("services") or defaults.get("services"):
        job["services"] = draft.services([_service(one) for one in services.each], f"{name}.services", _REASONS)
    job["steps"] = _steps(name, node, defaults, draft)
    for key in ("timeout", "retry"):
        if (found := node.get(key)) is not None:
            draft.lose(found, f"{name}.{key}", f"write `{key}` of the job in keepflow's words")
    draft.rest(node, name, _OF_JOBS, _REASONS)
    return job


def _needs(name: str, node: Node, names: Mapping[str, str], draft: Draft) -> list[str]:
    wanted = node.get("needs")
    found = []
    for one in wanted.each if wanted else ():
        job = one if one.text is not None else one.get("job")
        if job is None or job.text is None or job.text not in names:
            draft.lose(one, f"{name}.needs", f"{job.text if job else 'it'} is no job of this flow")
        else:
            found.append(names[job.text])
    return list(dict.fromkeys(found))


def _steps(name: str, node: Node, defaults: Mapping[str, Node], draft: Draft) -> list[dict[str, Any]]:
    script, before, after = (node.get(key) or defaults.get(key) for key in ("script", "before_script", "after_script"))
    variables = draft.variables(defaults.get("variables"), "variables")
    variables |= draft.variables(node.get("variables"), f"{name}.variables")
    lines = [*(before.texts if before else []), *(script.texts if script else [])]
    steps: list[dict[str, Any]] = [{"run": draft.script(lines, variables, expands=True)}]
    artifacts = node.get("artifacts")
    steps += draft.artifacts(artifacts, f"{name}.artifacts")
    if after is not None:
        draft.lose(after, f"{name}.after_script", "write it as a job with `when: always`")
    return steps


def _service(node: Node) -> tuple[str, Node]:
    """Return the name a service is reached by, and the service."""
    image = node.text or ""
    if node.pairs is not None:
        alias, name = node.get("alias"), node.get("name")
        image = name.text or "" if name else ""
        node = Node(
            node.line,
            pairs=(*(pair for pair in node.pairs if pair[0] != "name"), ("image", Node(node.line, text=image))),
        )
        if alias is not None and alias.text:
            return alias.text, node
    return image.rpartition("/")[2].partition(":")[0], node
