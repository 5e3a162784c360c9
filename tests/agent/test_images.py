"""Images of a job are what engine and registry say, within what the project may release; never a script's word."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepflow import errors
from keepflow.agent.images import Images, MadeHere
from keepflow.core.bases import Layered
from keepflow.errors import Unavailable
from keepflow.ports import ImageFacts
from keepflow.wire.messages import BaseImage, BuiltImage, Login, RunJob
from tests.agent.test_attempts import order

ID, OTHER_ID = "sha256:" + "1" * 64, "sha256:" + "2" * 64
DIGEST, OTHER_DIGEST = "sha256:" + "a" * 64, "sha256:" + "b" * 64
REGISTRY = "registry.example.org:5000"
PUSHED = f"{REGISTRY}/shop:7"


class Engine:
    """An engine with a fixed set of images."""

    def __init__(self, **images: ImageFacts) -> None:
        self.images = {
            "shop:7": ImageFacts(ID),
            PUSHED: ImageFacts(ID, (f"{REGISTRY}/shop@{DIGEST}",)),
            "other:1": ImageFacts(OTHER_ID),
            **images,
        }

    def image(self, reference: str) -> ImageFacts | None:
        return self.images.get(reference)

    def layered(self) -> list[Layered]:
        return []


def job(**more: object) -> RunJob:
    login = Login(address=REGISTRY, username="push", password="secret-password", repositories=("shop",))
    return order(7, **{"images": ("shop",), "logins": (login,), **more})


def images(tmp_path: Path, digest: str | None = DIGEST) -> Images:
    return Images(Engine(), MadeHere(tmp_path / "made"), lambda _login, _repository, _reference: digest)


def resolve(tmp_path: Path, *told: tuple[str, str], **settings: object) -> tuple[BuiltImage, ...]:
    digest = settings.pop("digest", DIGEST)
    assert digest is None or isinstance(digest, str)
    return images(tmp_path, digest).resolve(told, job(**settings), with_engine=True)


def test_a_built_image_is_what_the_engine_says(tmp_path: Path) -> None:
    assert resolve(tmp_path, ("image", "shop:7")) == (
        BuiltImage(origin="local", reference="shop:7", repository="shop", image_id=ID),
    )


def test_a_pushed_image_is_what_the_registry_says(tmp_path: Path) -> None:
    assert resolve(tmp_path, ("pushed", PUSHED)) == (
        BuiltImage(origin="registry", reference=PUSHED, repository=f"{REGISTRY}/shop", image_id=ID, digest=DIGEST),
    )


def test_the_last_word_about_a_repository_counts(tmp_path: Path) -> None:
    built = resolve(tmp_path, ("image", "shop:7"), ("note", "x"), ("image", "shop:7"), ("pushed", PUSHED))
    assert [image.origin for image in built] == ["local", "registry"]


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (("image", "other:1"), "image-not-allowed"),
        (("image", f"{REGISTRY}/other:1"), "image-not-allowed"),
        (("image", "shop:8"), "no-image"),
        (("image", "Shop:7"), "bad-image"),
        (("image", ""), "bad-image"),
        (("image", "shop:7;id"), "bad-image"),
        (("pushed", "shop:7"), "image-not-allowed"),
        (("pushed", "evil.example.org/shop:7"), "image-not-allowed"),
        (("pushed", f"{REGISTRY}/other:1"), "image-not-allowed"),
    ],
)
def test_what_is_not_allowed_or_not_there_fails_the_job(tmp_path: Path, told: tuple[str, str], code: str) -> None:
    with pytest.raises(errors.Refused) as caught:
        resolve(tmp_path, told)
    assert caught.value.code == code


def test_a_digest_that_is_not_of_the_local_image_fails_the_job(tmp_path: Path) -> None:
    with pytest.raises(errors.Refused, match="not the image of that name here") as caught:
        resolve(tmp_path, ("pushed", PUSHED), digest=OTHER_DIGEST)
    assert caught.value.code == "digest-mismatch"


def test_an_image_the_registry_does_not_have_fails_the_job(tmp_path: Path) -> None:
    with pytest.raises(errors.Refused, match="has no such image"):
        resolve(tmp_path, ("pushed", PUSHED), digest=None)


def test_a_login_that_was_not_lent_is_not_used(tmp_path: Path) -> None:
    for logins in ((), (Login(address=REGISTRY, username="push", password="secret", repositories=("other",)),)):
        with pytest.raises(errors.Refused, match="was lent no login"):
            resolve(tmp_path, ("pushed", PUSHED), logins=logins)


def test_a_flow_without_the_engine_cannot_claim_an_image(tmp_path: Path) -> None:
    with pytest.raises(errors.Refused, match="docker_for"):
        images(tmp_path).resolve([("image", "shop:7")], job(), with_engine=False)
    assert images(tmp_path).resolve([("note", "x")], job(), with_engine=False) == ()


def test_what_was_made_here_is_remembered(tmp_path: Path) -> None:
    resolve(tmp_path, ("image", "shop:7"))
    made = MadeHere(tmp_path / "made")
    assert ID in made
    assert OTHER_ID not in made


class Layers(Engine):
    """An engine that knows what its images are made of."""

    def layered(self) -> list[Layered]:
        return [Layered(ID, ("shop:7", PUSHED), ("a", "b")), Layered(OTHER_ID, (f"node@{OTHER_DIGEST}",), ("a",))]


class Mute(Engine):
    """An engine that lists nothing."""

    def layered(self) -> list[Layered]:
        raise Unavailable("the engine does not answer")


def test_an_image_brings_along_what_it_stands_on_and_an_engine_that_cannot_tell_fails_nothing(tmp_path: Path) -> None:
    def asked(engine: Engine, key: str, text: str) -> BuiltImage:
        made = Images(engine, MadeHere(tmp_path / "made"), lambda _login, _repository, _reference: DIGEST)
        return made.resolve([(key, text)], job(), with_engine=True)[0]

    for key, text in (("image", "shop:7"), ("pushed", PUSHED)):
        assert asked(Layers(), key, text).bases == (BaseImage(reference="node", digest=OTHER_DIGEST),)
        assert asked(Mute(), key, text).bases == ()
