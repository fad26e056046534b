"""What is built for a cloud: Kolla's environment by uv, the images' sources, and the images beside them."""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path

import pytest

from mrkolla.base import cache, packages, shell
from mrkolla.base.errors import DeployError, LackError
from mrkolla.base.progress import Progress
from mrkolla.cloud import deployed as cloud
from mrkolla.config.releases import release
from mrkolla.kolla import env, sources

RELEASE = release("2025.1")


@pytest.fixture
def parts(experiment, monkeypatch, tmp_path):
    """A cloud of which each thing that it builds is a function of the test's."""

    def make(**functions):
        made = {"environment": lambda: "environment", "root": lambda: None, "guest": lambda: None, **functions}
        monkeypatch.setattr(cloud.kolla_env, "ensure", lambda *_: made["environment"]())
        monkeypatch.setattr(cloud.guest, "ensure", lambda *_: made["guest"]())
        monkeypatch.setattr(cloud.images, "ensure", lambda release, env, *_: made["images"](env))
        progress = Progress(file=(tmp_path / "shown").open("w"))
        whole = cloud.DeployedCloud(experiment(), progress, tmp_path)
        monkeypatch.setattr(whole.testbed, "prepare", lambda *_: made["root"]())
        return whole

    return make


def test_images_are_built_while_the_environment_is(parts):
    begun = threading.Event()

    def environment():
        assert begun.wait(20), "the images waited for the environment"
        return "environment"

    def images(env):
        begun.set()
        return Path(f"/images/of/{env()}")

    assert parts(environment=environment, images=images).build() == ("environment", Path("/images/of/environment"))


def test_an_environment_that_fails_ends_the_images_with_the_same_word(parts):
    def environment():
        raise DeployError("uv pip install failed: no network")

    failed = []

    def images(env):
        try:
            return env()
        except DeployError as error:
            failed.append(str(error))
            raise

    with pytest.raises(DeployError, match=r"^uv pip install failed: no network$"):
        parts(environment=environment, images=images).build()
    assert failed == ["uv pip install failed: no network"]


def test_the_environment_is_made_by_uv_whose_cache_does_not_stay(monkeypatch, tmp_path):
    ran = []

    def must(argv, log, *, env, **_):
        ran.append((argv, env))
        if argv[1] == "venv":
            (Path(argv[-1]) / "bin").mkdir(parents=True)
            (Path(argv[-1]) / "share/kolla-ansible/ansible").mkdir(parents=True)
        Path(argv[argv.index("--cache-dir") + 1]).mkdir(exist_ok=True)

    monkeypatch.setattr(shell, "must", must)
    monkeypatch.setattr(packages, "program", lambda: "/bin/uv")
    monkeypatch.setattr(packages, "environment", lambda: {"UV_DEFAULT_INDEX": "https://one.example/simple"})
    monkeypatch.setattr(env, "apply", lambda *_: [])
    made = env.ensure(RELEASE, tmp_path / "log")
    assert [argv[:2] for argv, _ in ran] == [["/bin/uv", "venv"], ["/bin/uv", "pip"]]
    assert ran[1][0][-len(RELEASE.packages) :] == list(RELEASE.packages)
    assert str(made.python) in ran[1][0]
    assert all(given["UV_DEFAULT_INDEX"] == "https://one.example/simple" for _, given in ran)
    # What is edited here must not be what another environment is linked to.
    assert sorted(path.name for path in made.folder.iterdir()) == [cache.WHOLE, "venv"]


def wheel(folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as packed:
        packed.writestr("kolla/common/users.py", "USERS = {}\n")
        packed.writestr("kolla-20.6.0.data/data/share/kolla/docker/base/start.sh", "#!/bin/bash\n")


def test_the_sources_are_two_wheels_and_kollas_tree(monkeypatch, tmp_path):
    def must(argv, log, **_):
        folder = Path(argv[argv.index("--dest") + 1])
        wheel(folder, "kolla-20.6.0-py3-none-any.whl")
        wheel(folder, "ansible_core-2.18.1-py3-none-any.whl")
        assert argv[-1 - len(RELEASE.toolbox) :] == ["kolla==20.6.0", *RELEASE.toolbox]

    monkeypatch.setattr(shell, "must", must)
    made = sources.ensure(RELEASE, tmp_path / "log")
    assert made.users.read_text() == "USERS = {}\n"
    assert (made.docker / "base/start.sh").is_file()
    assert [path.name for path in made.wheels.iterdir()] == ["ansible_core-2.18.1-py3-none-any.whl"]


def test_a_registry_without_kollas_wheel_is_said_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(shell, "must", lambda *_, **__: None)
    with pytest.raises(LackError, match=r"^PyPI gave no wheel of kolla 20\.6\.0$"):
        sources.ensure(RELEASE, tmp_path / "log")
