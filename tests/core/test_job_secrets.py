"""Which runs get a secret of a project: bound by branch, tag, flow and environment; code from outside gets none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.flows import Flow, FlowFile, JobKind, JobPart, Step, Trigger
from keepflow.core.job_secrets import Binding, Receiver, SecretUse, is_owned, withheld
from keepflow.core.planning import plan, plan_from_json, plan_to_json

DEV = Receiver("dev", "refs/heads/dev", frozenset({"dev"}))
FEATURE = Receiver("checks", "refs/heads/feature/x")
TAG = Receiver("release", "refs/tags/v1.2")


@pytest.mark.parametrize(
    ("binding", "run", "word"),
    [
        (Binding(), DEV, None),
        (Binding(), FEATURE, "reaches no environment"),
        (Binding(), TAG, "no tags"),
        (Binding(branches=("feature/*",)), FEATURE, None),
        (Binding(branches=("feature/*", "!feature/x")), FEATURE, "not branch 'feature/x'"),
        (Binding(branches=("main",)), DEV, "it is for main, not branch 'dev'"),
        (Binding(tags=("v*",)), TAG, None),
        (Binding(tags=("w*",)), TAG, "it is for w*, not tag 'v1.2'"),
        (Binding(tags=("v*",)), FEATURE, "reaches no environment"),
        (Binding(branches=("**",), tags=("v*",)), FEATURE, None),
        (Binding(flows=("dev",)), DEV, None),
        (Binding(flows=("test", "nightly")), DEV, "it is for the flows test, nightly, not dev"),
        (Binding(environments=("dev", "test")), DEV, None),
        (Binding(environments=("production",)), DEV, "branches of production"),
        (Binding(environments=("dev",), branches=("main",)), DEV, "it is for main"),
    ],
)
def test_each_binding_lets_through_what_it_says(binding: Binding, run: Receiver, word: str | None) -> None:
    why = withheld(binding, run)
    assert (why is None) if word is None else (why is not None and word in why)


_patterns = st.lists(st.sampled_from(["**", "*", "dev", "v*"]), max_size=2).map(tuple)
_bindings = st.builds(
    Binding, st.lists(st.just("dev"), max_size=1).map(tuple), _patterns, _patterns, st.just(()) | st.just(("dev",))
)


@given(_bindings, st.sampled_from(["dev", "other"]), st.text(max_size=12), st.booleans())
def test_r06_no_binding_however_wide_gives_foreign_code_a_secret(
    binding: Binding, flow: str, name: str, foreign: bool
) -> None:
    reaches = frozenset({"dev"})
    assert withheld(binding, Receiver(flow, f"refs/heads/{name}", reaches, foreign=True))
    for ref in (f"refs/pull/{name}/head", f"refs/merge-requests/{name}", f"refs/{name}", name, f"heads{name}"):
        if not ref.startswith(("refs/heads/", "refs/tags/")):
            assert withheld(binding, Receiver(flow, ref, reaches, foreign=foreign))


def test_what_a_step_asks_for_comes_back_from_the_store() -> None:
    uses = (SecretUse("A", env="A"), SecretUse("config.page", file="www/config.page"), SecretUse("k", file_env="K"))
    part = JobPart(JobKind.SCRIPT, Step("run", "make", {"script": "make"}, 5, secrets=uses))
    made = plan(Flow("dev", Trigger(), (part,)), FlowFile({}))
    assert plan_from_json(plan_to_json(made)) == made


@pytest.mark.parametrize("name", ["KEEPFLOW_X", "LD_PRELOAD", "DOCKER_HOST", "HOME", "CI"])
def test_variables_that_mean_something_are_nobodys(name: str) -> None:
    assert is_owned(name)
    assert not is_owned(f"X{name}")
