"""build-image.sh and build-dist.sh: what is built, what is left alone, and what a failure leaves behind."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.engines import Engine
from tests.real.sample import SCRIPTS, commit, git, set_marker
from tests.real.scripted import Checkout

pytestmark = pytest.mark.real


@pytest.fixture
def checkout(engine: Engine, tmp_path: Path) -> Iterator[Checkout]:
    """A fresh checkout; its images go away with the test."""
    made = Checkout.make(tmp_path / "checkout", engine)
    yield made
    made.clean()


def files_of(engine: Engine, image: str) -> dict[str, bytes]:
    """Return the files below /project of an image, by their path from there."""
    container = engine.docker("create", image)
    try:
        packed = subprocess.run(
            ["docker", "cp", f"{container}:/project", "-"], env=engine.env, capture_output=True, check=True
        )
    finally:
        engine.docker("rm", container)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tar:
        contents = ((member.name, tar.extractfile(member)) for member in tar)
        return {name.removeprefix("project/"): file.read() for name, file in contents if file is not None}


def tree(directory: Path) -> dict[str, bytes]:
    """Return the contents of every file in a directory, without git's own."""
    paths = (path for path in directory.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


WRONG = [(), ("production",), ("dev", "extra"), ("--help",), ("",)]


@pytest.mark.parametrize("argv", WRONG, ids=str)
@pytest.mark.parametrize("script", SCRIPTS)
def test_wrong_arguments_show_the_usage_and_end_with_2(checkout: Checkout, script: str, argv: tuple[str, ...]) -> None:
    if script == "build-dist.sh" and len(argv) == 2:
        argv = (*argv, "third")
    done = checkout.run(script, *argv)
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: {script}")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("variable", "value"), [("BUILD_NUMBER", "12;id"), ("KEEPFLOW_IMAGE", "$(id)"), ("KEEPFLOW_IMAGE", "--all")]
)
@pytest.mark.parametrize("script", ["build-image.sh", "push-image.sh", "restart-server.sh"])
def test_hostile_values_in_the_environment_are_refused(
    checkout: Checkout, script: str, variable: str, value: str
) -> None:
    done = subprocess.run(
        [str(checkout.directory / "scripts" / script), "test"],
        env=checkout.env(BUILD_NUMBER="1", KEEPFLOW_REGISTRY="127.0.0.1:9") | {variable: value},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert variable in done.stderr


def test_dev_builds_the_checkout_as_it_is(checkout: Checkout) -> None:
    set_marker(checkout.directory, "hello")
    sha = commit(checkout.directory, "Say hello")
    before = tree(checkout.directory)
    done = checkout.run("build-image.sh", "dev", number=7)
    assert done.returncode == 0, done.stderr
    image = f"{checkout.name}/dev:b7"
    assert checkout.images() == {image}
    assert checkout.told == [f"image={image}"]
    inside = files_of(checkout.engine, image)
    assert inside["www/build-info"].decode().split() == [f"commit={sha}", "build=7"]
    assert inside["www/app.js"] == before["www/app.js"]
    assert tree(checkout.directory) == before, "the checkout is only read"


def test_the_commit_told_by_the_job_wins_over_the_checkouts(checkout: Checkout) -> None:
    done = checkout.run("build-image.sh", "dev", GIT_COMMIT="c" * 40)
    assert done.returncode == 0, done.stderr
    assert b"commit=" + b"c" * 40 in files_of(checkout.engine, f"{checkout.name}/dev:b1")["www/build-info"]


def test_another_checkout_can_be_named_by_workspace(checkout: Checkout, tmp_path: Path) -> None:
    workspace = tmp_path / "a place with spaces"
    checkout.directory.rename(workspace)
    (workspace / "www/marker.txt").write_text("moved\n")
    done = subprocess.run(
        [str(workspace / "scripts/build-image.sh"), "dev"],
        cwd="/", env=checkout.env(WORKSPACE=str(workspace)), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert files_of(checkout.engine, f"{checkout.name}/dev:b0")["www/marker.txt"] == b"moved\n"


def test_secret_files_go_into_the_image_and_never_into_the_checkout(checkout: Checkout, tmp_path: Path) -> None:
    secret = tmp_path / "home" / "project_secret_files" / checkout.name / "www" / "config.json"
    secret.parent.mkdir(parents=True)
    secret.write_text('{"key": "s3cret"}')
    before = tree(checkout.directory)
    done = checkout.run("build-image.sh", "dev", JENKINS_HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert files_of(checkout.engine, f"{checkout.name}/dev:b1")["www/config.json"] == b'{"key": "s3cret"}'
    assert tree(checkout.directory) == before
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize("environment", ["dev", "test"])
def test_a_docker_build_that_fails_fails_the_script(checkout: Checkout, environment: str) -> None:
    (checkout.directory / "Dockerfile").write_text(f"FROM {checkout.engine.base_image('busybox')}\nRUN exit 41\n")
    done = checkout.run("build-image.sh", environment)
    assert done.returncode not in (0, 2)
    assert checkout.told == []
    assert f"{checkout.name}/{environment}:b1" not in checkout.images()
    assert not [image for image in checkout.images() if image.startswith("build-")]
    left = checkout.engine.docker("container", "ls", "--all", "--no-trunc", "--format", "{{.Command}}")
    assert "exit 41" not in left


def test_test_compresses_the_code_and_leaves_the_originals(checkout: Checkout) -> None:
    before = tree(checkout.directory)
    image = checkout.build("test")
    assert checkout.told == [f"image={image}"]
    inside = files_of(checkout.engine, image)
    for name in ("www/app.js", "www/style.css"):
        assert 0 < len(inside[name]) < 0.8 * len(before[name])
        unpacked = subprocess.run(["gzip", "-dc"], input=inside[f"{name}.gz"], capture_output=True, check=True).stdout
        assert unpacked == inside[name]
    assert b"// Says hello" not in inside["www/app.js"]
    assert b"fetch(" in inside["www/app.js"]
    assert "www/index.html.gz" in inside
    assert tree(checkout.directory) == before
    assert git(checkout.directory, "status", "--porcelain") == ""
    assert checkout.images() == {image, f"{checkout.name}/dist:latest"}, "nothing temporary stays"


def test_code_that_cannot_be_compressed_fails_and_leaves_everything_as_it_was(checkout: Checkout) -> None:
    (checkout.directory / "www/app.js").write_text("function ( {")
    before = tree(checkout.directory)
    done = checkout.run("build-image.sh", "test")
    assert done.returncode not in (0, 2)
    assert "app.js" in done.stderr or "<stdin>" in done.stderr
    assert checkout.told == []
    assert tree(checkout.directory) == before
    assert checkout.images() == set()


def test_the_same_code_is_not_compressed_into_a_pile_of_images(checkout: Checkout) -> None:
    for number in (1, 2, 3):
        set_marker(checkout.directory, f"change {number}")
        checkout.build("test", number)
    assert [image for image in checkout.images() if "/dist:" in image] == [f"{checkout.name}/dist:latest"]
    assert not [image for image in checkout.images() if image.startswith("build-")]


def test_hostile_file_names_are_compressed_and_run_nothing(checkout: Checkout) -> None:
    www = checkout.directory / "www"
    hostile = ["$(touch pwned).js", "; touch pwned;.js", "-rf.css", "a b\nc.js", "`touch pwned`.css", "--minify.js"]
    for name in hostile:
        (www / name).write_text("a { color : red }\n" if name.endswith(".css") else "let  a  =  1 ;\n")
    inside = files_of(checkout.engine, checkout.build("test"))
    for name in hostile:
        assert f"www/{name}.gz" in inside
        assert inside[f"www/{name}"].strip() in (b"a{color:red}", b"let a=1;")
    assert not [name for name in inside if name.endswith("pwned")]
    assert not list(checkout.directory.rglob("pwned"))


def test_two_builds_of_one_checkout_at_once_do_not_meet(checkout: Checkout) -> None:
    both = [checkout.start("build-image.sh", "test", number=number) for number in (1, 2)]
    said = [build.communicate(timeout=120)[0] for build in both]
    assert [build.returncode for build in both] == [0, 0], "\n".join(said)
    for number in (1, 2):
        info = files_of(checkout.engine, f"{checkout.name}/test:b{number}")["www/build-info"]
        assert info.endswith(b"build=%d\n" % number)


def test_every_tenth_build_removes_what_is_older_than_ten(checkout: Checkout) -> None:
    first = checkout.build("dev", 1)
    for number in range(2, 12):
        checkout.engine.docker("tag", first, f"{checkout.name}/dev:b{number}")
    set_marker(checkout.directory, "twenty")
    newest = checkout.build("dev", 20)
    assert newest in checkout.images()
    assert len(checkout.images()) == 10


def test_build_dist_by_hand_refuses_to_overwrite(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").write_text("mine")
    done = checkout.run("build-dist.sh", str(checkout.directory / "www"), str(tmp_path / "out"))
    assert done.returncode == 1
    assert "remove it first" in done.stderr
    assert (tmp_path / "out/precious").read_text() == "mine"


def test_build_dist_that_fails_leaves_no_target(checkout: Checkout, tmp_path: Path) -> None:
    www, out = checkout.directory / "www", tmp_path / "out"
    done = checkout.run("build-dist.sh", str(www), str(out), ESBUILD="false")
    assert done.returncode != 0
    assert not list(tmp_path.glob("out*"))
    assert "function say" in (www / "app.js").read_text()
