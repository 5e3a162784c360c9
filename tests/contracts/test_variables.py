"""Two rooms, one list: what a flow file may name in `${…}` is what the agent gives to scripts."""

from __future__ import annotations

from pathlib import Path

from keepflow.agent import environment
from keepflow.core.interpolation import VARIABLES
from keepflow.wire.messages import RunJob


def test_every_variable_a_flow_file_may_name_is_given_to_scripts() -> None:
    order = RunJob(
        fence=1,
        project="shop",
        run=7,
        flow="dev",
        job="steps",
        attempt=1,
        sha="a" * 40,
        ref="refs/heads/dev",
        trust="protected",
        code_path="/git/shop",
        token="kf_job_x",
        env={},
        steps=(),
    )
    here = Path("/nonexistent")
    places = environment.Places(here, here, here, here, here, here, None)
    job = environment.of_job(order, "build-1", "https://ci.example.org", "jobs", "mark", places)
    missing = [name for name in VARIABLES if name not in environment.of_step(job, "make")]
    assert not missing
