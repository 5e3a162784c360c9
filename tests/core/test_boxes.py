"""How the engine is told to make containers of jobs: exactly this, and nothing that opens the machine."""

from __future__ import annotations

import csv
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.boxes import Box, Limits, Mount, Owner, Service, box_argv, command_argv, service_argv

OWNER = Owner("key-1", "7-abc", 7, "shop#12", "steps")
#: What would give a container more than its job: none of it is ever said.
OPENING = (
    *("--privileged", "--pid", "--ipc", "--uts", "--userns", "--cgroupns", "--device", "--volume", "-v", "--env", "-e"),
    *("--add-host", "--group-add", "--volumes-from", "--publish", "-p", "--security-opt=seccomp=unconfined"),
)


def box(**more: object) -> Box:
    """Return a box with everything said."""
    said = {
        "name": OWNER.named("1-box"),
        "image": "sha256:" + "1" * 64,
        "user": "990:990",
        "workdir": "/go/src/shop",
        "network": OWNER.named("net"),
        "labels": OWNER.labels,
        "mounts": [Mount("/lanes/work", "/go/src/shop"), Mount("/attempt/handed", "/run/keepflow", read_only=True)],
        "limits": Limits(memory=10**9, cpus=1.5, pids=100),
    }
    return Box(**{**said, **more})  # type: ignore[arg-type]  # the tests name the fields


def test_t12_a_box_is_made_with_these_settings_and_no_others() -> None:
    argv = box_argv(box())
    assert argv[:-2] == [
        *("create", "--pull", "never", "--init", "--name", "kf-job-7-abc-1-box", "--network", "kf-job-7-abc-net"),
        *("--restart", "no", "--security-opt", "no-new-privileges"),
        *("--label", "keepflow.agent=key-1", "--label", "keepflow.attempt=7-abc", "--label", "keepflow.fence=7"),
        *("--label", "keepflow.run=shop#12", "--label", "keepflow.job=steps"),
        *("--memory", "1000000000", "--memory-swap", "1000000000", "--cpus", "1.5", "--pids-limit", "100"),
        *("--user", "990:990", "--cap-drop", "ALL", "--log-driver", "none", "--interactive"),
        *("--mount", "type=bind,source=/lanes/work,target=/go/src/shop"),
        *("--mount", "type=bind,source=/attempt/handed,target=/run/keepflow,readonly"),
        *("--workdir", "/go/src/shop", "--entrypoint", "sh", "sha256:" + "1" * 64),
    ]
    assert not set(OPENING) & set(argv)


def test_t12_a_service_mounts_nothing_and_gets_only_what_lets_it_leave_root() -> None:
    service = Service("kf-job-7-abc-2-db", "db", "sha256:1", "net", OWNER.labels, "/attempt/db.env", ["postgres"])
    argv = service_argv(service)
    rights = [argv[index + 1] for index, word in enumerate(argv) if word == "--cap-add"]
    assert rights == ["CHOWN", "DAC_OVERRIDE", "FOWNER", "NET_BIND_SERVICE", "SETGID", "SETUID"]
    assert argv[argv.index("--cap-drop") + 1] == "ALL"
    assert "--mount" not in argv
    assert not set(OPENING) & set(argv)
    assert argv[-2:] == ["sha256:1", "postgres"]


def test_no_limit_is_said_where_there_is_none() -> None:
    assert not {"--memory", "--cpus", "--pids-limit", "--storage-opt"} & set(box_argv(box(limits=Limits())))
    assert "size=5" in box_argv(box(limits=Limits(disk=5)))


def test_a_command_is_told_by_its_words_and_its_variables_by_a_file() -> None:
    argv = command_argv("kf-box", "kf-box-1", ["sh", "-e", "-c", "make 'it'"])
    assert argv[:4] == ["exec", "kf-box", "sh", "-c"]
    assert argv[5:] == ["sh", "/run/keepflow/kf-box-1", "sh", "-e", "-c", "make 'it'"]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60))
def test_a_folder_of_any_name_is_one_field_of_a_mount(name: str) -> None:
    source = str(PurePosixPath("/") / name)
    argv = box_argv(box(mounts=[Mount(source, "/w")]))
    [fields] = csv.reader([argv[argv.index("--mount") + 1]])
    assert fields == ["type=bind", f"source={source}", "target=/w"]
