"""`keepflow report`: the shapes that mean something, and that all others are errors."""

from __future__ import annotations

import csv
import io
from xml.etree import ElementTree

import pytest

from keepflow.cli import report
from keepflow.errors import NotFound
from tests.cli.conftest import Keepflow

SHAPES = (
    ((), "run"),
    (("--flow", "test"), "run"),
    (("--run", "2"), "job"),
    (("--flow", "test", "--run", "1"), "job"),
    (("--flow", "test", "--job", "build"), "job"),
    (("--flow", "test", "--run", "1", "--job", "build"), "job"),
)


@pytest.mark.parametrize(("argv", "kind"), SHAPES)
def test_r68_a_report_answers_every_shape_in_every_format(argv: tuple[str, ...], kind: str, keepflow: Keepflow) -> None:
    data = keepflow("report", "-P", "keepwork", *argv, "--format", "json")
    assert data.code == 0, data.err
    assert data.json
    assert all(("job" in row) == (kind == "job") for row in data.json)
    if "--flow" in argv:
        assert {row["flow"] for row in data.json} == {"test"}
    table = keepflow("report", "-P", "keepwork", *argv)
    assert len(table.out.splitlines()) == len(data.json) + 1
    rows = list(csv.DictReader(io.StringIO(keepflow("report", "-P", "keepwork", *argv, "--format", "csv").out)))
    assert [row["state"] for row in rows] == [row["state"] for row in data.json]
    junit = ElementTree.fromstring(keepflow("report", "-P", "keepwork", *argv, "--format", "junit").out)  # noqa: S314 - our own text
    assert len(junit.findall("testsuite/testcase")) == len(data.json)


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("--stage", "build"), 2, "--stage belongs to a flow"),
        (("--job", "build"), 2, "--job belongs to a flow"),
        (("--run", "2", "--job", "build"), 2, "--job belongs to a flow"),
        (("--flow", "dev", "--run", "2"), 1, "not of 'dev'"),
        (("--flow", "nope"), 1, "no run of a flow 'nope'"),
        (("--flow", "test", "--job", "buildd"), 1, "did you mean 'build'?"),
        (("--flow", "test", "--stage", "build"), 1, "no stage 'build'; there are: none"),
        (("--run", "0"), 2, "0 is not in the range"),
        (("--run", "999"), 1, "no run"),
    ],
)
def test_r68_a_wrong_mix_is_an_error(argv: tuple[str, ...], code: int, words: str, keepflow: Keepflow) -> None:
    said = keepflow("report", "-P", "keepwork", *argv)
    assert (said.code, said.out) == (code, "")
    assert words in said.err


def _run(number: int, *jobs: tuple[str, str, str]) -> report.Row:
    told = {"reason": "", "started_at": None, "finished_at": None}
    return {"number": number, "flow": "all", "jobs": [{"key": k, "stage": s, "state": e, **told} for k, s, e in jobs]}


def test_r68_a_stage_is_reported_in_every_run_and_in_one() -> None:
    runs = [_run(2, ("unit", "test", "failed"), ("make", "build", "succeeded")), _run(1, ("make", "build", "failed"))]
    assert [(row["run"], row["job"]) for row in report._jobs(runs, "build", None)] == [(2, "make"), (1, "make")]
    assert [row["job"] for row in report._jobs(runs[:1], "test", None)] == ["unit"]
    assert [row["state"] for row in report._jobs(runs, "build", "make")] == ["succeeded", "failed"]
    with pytest.raises(NotFound, match="no job 'unit'"):
        report._jobs(runs, "build", "unit")


def test_what_failed_is_a_failure_to_junit() -> None:
    rows = report._jobs([_run(1, ("a", "", "failed"), ("b", "", "skipped"), ("c", "", "succeeded"))], None, None)
    suite = ElementTree.fromstring(report._junit(rows))[0]  # noqa: S314 - our own text
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    assert [len(case) for case in suite] == [1, 1, 0]
