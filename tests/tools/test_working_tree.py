"""A person's checkout and copies of it, with real git."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keepflow.errors import NotFound
from keepflow.tools.git.working_tree import WorkingTree, working_tree
from tests.tools.repositories import git


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one commit on `dev`."""
    place = tmp_path / "shop"
    (place / "src").mkdir(parents=True)
    git(place, "init", "--quiet", "--initial-branch=dev", ".")
    (place / ".gitignore").write_text("*.log\n/secret.env\n")
    (place / "src" / "app.py").write_text("print(1)\n")
    (place / "run.sh").write_text("#!/bin/sh\n")
    (place / "run.sh").chmod(0o755)
    (place / "latest").symlink_to("src/app.py")
    commit(place, "first")
    return place


def commit(place: Path, message: str) -> None:
    git(place, "add", "--all")
    git(place, "commit", "--quiet", f"--message={message}")


def look(place: Path) -> WorkingTree:
    found = working_tree(place)
    assert found is not None
    return found


def names(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*") if not path.is_dir() or path.is_symlink()}


def test_a_copy_holds_what_stands_there_and_not_what_git_ignores(checkout: Path, tmp_path: Path) -> None:
    (checkout / "src" / "app.py").write_text("print(2)\n")
    (checkout / "new\nname.txt").write_text("new")
    (checkout / "secret.env").write_text("PASSWORD=x")
    (checkout / "src" / "a.log").write_text("noise")
    (checkout / "run.sh").unlink()
    tree = look(checkout / "src")
    assert (tree.root, tree.ref, tree.changed, tree.new) == (checkout, "refs/heads/dev", 2, 1)
    assert tree.copy(tmp_path / "copy") == []
    copy = tmp_path / "copy"
    assert names(copy) == {".gitignore", "src/app.py", "latest", "new\nname.txt"}
    assert (copy / "src" / "app.py").read_text() == "print(2)\n"
    assert (copy / "latest").readlink() == Path("src/app.py")


def test_modes_are_kept(checkout: Path, tmp_path: Path) -> None:
    look(checkout).copy(tmp_path / "copy")
    assert os.access(tmp_path / "copy" / "run.sh", os.X_OK)
    assert not os.access(tmp_path / "copy" / "src" / "app.py", os.X_OK)


def test_a_directory_that_became_a_link_leads_nowhere_outside_the_copy(checkout: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (checkout / "src").rename(outside)
    (checkout / "src").symlink_to(outside)
    look(checkout).copy(tmp_path / "copy")
    assert (tmp_path / "copy" / "src").is_symlink()
    assert (outside / "app.py").read_text() == "print(1)\n"


def test_a_repository_within_is_left_out_and_named(checkout: Path, tmp_path: Path) -> None:
    inner = checkout / "vendor" / "lib"
    inner.mkdir(parents=True)
    git(inner, "init", "--quiet", ".")
    (inner / "lib.py").write_text("")
    commit(inner, "lib")
    assert look(checkout).copy(tmp_path / "copy") == ["vendor/lib"]
    assert not (tmp_path / "copy" / "vendor").exists()


def test_a_commit_is_copied_without_what_is_not_committed(checkout: Path, tmp_path: Path) -> None:
    first = look(checkout).sha
    (checkout / "src" / "app.py").write_text("print(2)\n")
    commit(checkout, "second")
    (checkout / "new.txt").write_text("new")
    tree = look(checkout)
    assert tree.resolve("dev") == ("refs/heads/dev", tree.sha)
    assert tree.resolve(first[:10]) == ("", first)
    assert (tree.message_of(first), tree.message_of(tree.sha)) == ("first", "second")
    tree.copy_commit(first, tmp_path / "copy")
    assert (tmp_path / "copy" / "src" / "app.py").read_text() == "print(1)\n"
    assert not (tmp_path / "copy" / "new.txt").exists()
    assert git(checkout, "status", "--porcelain") == "?? new.txt"


@pytest.mark.parametrize("name", ["nope", "--all", "-x", "a b", "dev:src", ""])
def test_what_names_no_commit_is_not_found(checkout: Path, name: str) -> None:
    tree = look(checkout)
    with pytest.raises(NotFound):
        tree.resolve(name)


def test_a_checkout_of_no_branch_and_one_without_a_commit(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "checkout", "--quiet", "--detach")
    assert look(checkout).ref == ""
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    git(fresh, "init", "--quiet", "--initial-branch=dev", ".")
    assert (look(fresh).sha, look(fresh).ref) == ("", "refs/heads/dev")


def test_a_directory_in_no_repository_is_none(tmp_path: Path) -> None:
    assert working_tree(tmp_path) is None


def test_submodules_come_along_as_they_stand_when_they_are_asked_for(tmp_path: Path) -> None:
    def made(place: Path, module: str = "", url: Path | None = None) -> Path:
        place.mkdir()
        git(place, "init", "-q", ".")
        if url is not None:
            git(place, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(url), module)
        (place / "file").write_text(place.name)
        git(place, "add", ".")
        git(place, "commit", "-qm", "x")
        return place

    inner = made(tmp_path / "inner")
    lib = made(tmp_path / "lib", "deep", inner)
    top = made(tmp_path / "top", "third/lib", lib)
    git(top / "third/lib", "-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init")
    (top / "third/lib/file").write_text("changed and not committed")
    git(made(tmp_path / "strange"), "clone", "-q", str(inner), str(top / "strange"))
    tree = working_tree(top)
    assert tree is not None
    for recursive, beyond in ((False, ["third/lib/deep"]), (True, [])):
        place = tmp_path / f"copy-{recursive}"
        left_out = tree.copy_submodules(place, tree.copy(place), recursive=recursive)
        assert sorted(left_out) == sorted(["strange", *beyond])
        assert (place / "third/lib/file").read_text() == "changed and not committed"
        assert (place / "third/lib/deep/file").exists() == recursive
        assert not list(place.rglob(".git"))
