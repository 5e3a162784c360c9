"""Statements about images: what is written is read back, what does not fit is named, and whose word counts."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core import receipts
from keepflow.core.receipts import Base, Build, Result, Subject
from keepflow.errors import BadReceipt

KEY = "sha256:" + "c" * 64
SUBJECT = Subject("registry.example.org:5000/shop", "sha256:" + "a" * 64)
BUILD = Build(
    repository="https://github.com/example/shop.git",
    ref="refs/heads/master",
    flow="test",
    sha="1" * 40,
    run="https://ci.example.org/projects/shop/runs/12",
    builder=receipts.builder_id("https://ci.example.org", KEY),
    started_at=1_800_000_000_000_001,
    finished_at=1_800_000_060_000_000,
    inputs={"suite": "fast"},
    bases=(Base("docker.io/library/node:22", "sha256:" + "b" * 64),),
)
RESULT = Result(
    passed=True,
    environment="shop/test",
    deployment="d-1",
    run="https://ci.example.org/projects/shop/runs/12",
    person="ann",
    at=1_800_000_100_000_000,
    note="login, cart, pay",
)


def test_a_provenance_has_the_shape_of_slsa_provenance_v1() -> None:
    statement = receipts.provenance(SUBJECT, BUILD)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [{"name": "registry.example.org:5000/shop", "digest": {"sha256": "a" * 64}}]
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    definition, details = statement["predicate"]["buildDefinition"], statement["predicate"]["runDetails"]
    assert definition["resolvedDependencies"] == [
        {"uri": "git+https://github.com/example/shop.git@refs/heads/master", "digest": {"gitCommit": "1" * 40}},
        {"uri": "docker.io/library/node:22", "digest": {"sha256": "b" * 64}},
    ]
    assert details["builder"] == {"id": f"https://ci.example.org#{KEY}"}
    assert details["metadata"] == {
        "invocationId": "https://ci.example.org/projects/shop/runs/12",
        "startedOn": "2027-01-15T08:00:00.000001Z",
        "finishedOn": "2027-01-15T08:01:00Z",
    }


def test_what_is_written_is_read_back() -> None:
    assert receipts.read_provenance(receipts.provenance(SUBJECT, BUILD), SUBJECT, {KEY}) == BUILD
    assert receipts.read_test_result(receipts.tested(SUBJECT, RESULT), SUBJECT) == RESULT


@pytest.mark.parametrize(
    ("repository", "uri"),
    [
        ("git@github.com:example/shop.git", "git+ssh://git@github.com/example/shop.git@refs/heads/master"),
        ("/srv/git/shop.git", "git+file:///srv/git/shop.git@refs/heads/master"),
        ("ssh://git@example.org/shop.git", "git+ssh://git@example.org/shop.git@refs/heads/master"),
    ],
)
def test_every_kind_of_address_becomes_a_uri(repository: str, uri: str) -> None:
    build = Build(**{**{name: getattr(BUILD, name) for name in Build.__slots__}, "repository": repository})
    [code, _base] = receipts.provenance(SUBJECT, build)["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert code["uri"] == uri


def _with(statement: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(statement)
    *way, last = path.split(".")
    place: Any = changed
    for name in way:
        place = place[int(name)] if isinstance(place, list) else place[name]
    at: Any = int(last) if isinstance(place, list) else last
    if value is None:
        del place[at]
    else:
        place[at] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("_type", "https://in-toto.io/Statement/v0.1", "type"),
        ("predicateType", receipts.TEST_RESULT, "type"),
        ("subject", [], "subject"),
        ("subject.0.name", "registry.example.org:5000/other", "subject"),
        ("subject.0.digest", {"sha256": "f" * 64}, "subject"),
        ("subject.0.digest", {"sha512": "f" * 128}, "subject"),
        ("predicate", None, "unreadable"),
        ("predicate.buildDefinition.buildType", "urn:other", "type"),
        ("predicate.buildDefinition.externalParameters.privileged", "yes", "parameters"),
        ("predicate.buildDefinition.externalParameters.inputs", ["x"], "parameters"),
        ("predicate.buildDefinition.externalParameters.flow", None, "unreadable"),
        ("predicate.buildDefinition.resolvedDependencies", [], "unreadable"),
        ("predicate.buildDefinition.resolvedDependencies.1.digest", {"sha256": "latest"}, "unreadable"),
        ("predicate.runDetails.builder.id", "https://ci.example.org", "builder"),
        ("predicate.runDetails.builder.id", f"https://ci.example.org#sha256:{'d' * 64}", "builder"),
        ("predicate.runDetails.metadata.startedOn", "yesterday", "unreadable"),
        ("predicate.runDetails.metadata.finishedOn", "2027-01-15T08:01:00", "unreadable"),
    ],
)
def test_what_does_not_fit_in_a_provenance_is_named(path: str, value: Any, code: str) -> None:
    statement = _with(receipts.provenance(SUBJECT, BUILD), path, value)
    with pytest.raises(BadReceipt) as caught:
        receipts.read_provenance(statement, SUBJECT, {KEY})
    assert caught.value.code == f"receipt-{code}"
    assert path.startswith(caught.value.field.partition(".0")[0]) or caught.value.field.startswith(path)
    assert caught.value.field in caught.value.message


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("predicate.result", "WARNED", "result"),
        ("predicate.result", None, "result"),
        ("predicate.keepflow_by", {"person": "ann", "run": "x"}, "unreadable"),
        ("predicate.keepflow_by", {"robot": "x"}, "unreadable"),
        ("predicate.keepflow_by.person", 7, "unreadable"),
        ("predicate.keepflow_at", True, "unreadable"),
        ("predicate.keepflow_at", -1, "unreadable"),
        ("predicate.keepflow_at", 2**60, "unreadable"),
        ("predicate.configuration", [], "unreadable"),
        ("predicate.keepflow_note", None, "unreadable"),
        ("subject.0.digest", {"sha256": "f" * 64}, "subject"),
    ],
)
def test_what_does_not_fit_in_a_test_result_is_named(path: str, value: Any, code: str) -> None:
    with pytest.raises(BadReceipt) as caught:
        receipts.read_test_result(_with(receipts.tested(SUBJECT, RESULT), path, value), SUBJECT)
    assert caught.value.code == f"receipt-{code}"
    assert caught.value.field in caught.value.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)
PATHS = [
    "predicate",
    "predicate.buildDefinition",
    "predicate.buildDefinition.externalParameters",
    "predicate.buildDefinition.resolvedDependencies",
    "predicate.buildDefinition.resolvedDependencies.0",
    "predicate.runDetails",
    "predicate.runDetails.builder",
    "predicate.runDetails.metadata",
    "predicate.runDetails.metadata.startedOn",
    "subject",
]


@given(st.sampled_from(PATHS), JSON)
def test_no_statement_breaks_its_reader(path: str, value: Any) -> None:
    statement = _with(receipts.provenance(SUBJECT, BUILD), path, value if value is not None else "")
    with contextlib.suppress(BadReceipt):
        receipts.read_provenance(statement, SUBJECT, {KEY})


@given(JSON)
def test_no_predicate_breaks_the_reader_of_test_results(value: Any) -> None:
    statement = {**receipts.tested(SUBJECT, RESULT), "predicate": value}
    with pytest.raises(BadReceipt):
        receipts.read_test_result(statement, SUBJECT)


def _said(passed: bool, at: int, person: str = "") -> Result:
    return Result(passed, "shop/test", "d-1", "https://ci.example.org/projects/shop/runs/1", person, at)


def test_the_newest_word_counts_and_a_persons_outranks_a_runs() -> None:
    assert receipts.verdict([]) is None
    assert receipts.verdict([_said(True, 5)]) == _said(True, 5)
    assert receipts.verdict([_said(False, 1, "ann"), _said(True, 9)]) == _said(False, 1, "ann")
    assert receipts.verdict([_said(False, 1, "ann"), _said(True, 2, "bo")]) == _said(True, 2, "bo")
    assert receipts.verdict([_said(True, 2, "bo"), _said(False, 2, "ann")]) == _said(False, 2, "ann")


@given(st.permutations([_said(True, 1), _said(True, 4, "ann"), _said(False, 4, "bo"), _said(True, 3, "cy")]))
def test_the_order_in_which_results_come_decides_nothing(results: list[Result]) -> None:
    assert receipts.verdict(results) == _said(False, 4, "bo")
