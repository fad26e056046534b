"""The container images' recipe: Dockerfiles, build contexts, users; from a tiny tree that stands in for Kolla's."""

from __future__ import annotations

import re
import stat

import pytest

from mrkolla.base.errors import DeployError
from mrkolla.config.releases import release
from mrkolla.images import build, recipe, root
from mrkolla.images.recipe import BASE_SCRIPTS, IMAGES, SUDOERS, Image
from mrkolla.kolla.env import PLAYBOOKS

USERS = '''\
"""A tiny stand-in for kolla/common/users.py."""
USERS = {
    "kolla-user": {"uid": 42400, "gid": 42400},
    "nova-user": {"uid": 42436, "gid": 42436},
    "qemu-user": {"uid": 42427, "gid": 42427},
    "libvirt-user": {"uid": 42495, "gid": 42427, "group": "qemu"},
    "ansible-user": {"uid": 42401, "gid": 42401},
}
'''


@pytest.fixture
def tiny_fake_kolla(tmp_path):
    """A fake of Kolla's source tree: every script that the recipe names, with its own path as content."""
    sources = tmp_path / "tiny-fake-kolla"
    wanted = {*BASE_SCRIPTS, *SUDOERS, *(s for image in IMAGES.values() for s in image.scripts.values() if s)}
    for name in wanted:
        path = sources / "docker" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n# {name}\n")
    (sources / "kolla" / "common").mkdir(parents=True)
    (sources / "kolla" / "common" / "users.py").write_text(USERS)
    return sources


def test_dockerfile_of_an_image_with_everything():
    image = Image({"kolla_extend_start": "a/b.sh", "kolla_x_extend_start": None}, "nova", ("RUN one", "ENV A=b"))
    assert build.dockerfile("nova-x", image).splitlines() == [
        "FROM mrkolla-base:1",
        'LABEL name="nova-x"',
        "COPY kolla_extend_start kolla_x_extend_start /usr/local/bin/",
        "RUN one",
        "ENV A=b",
        "USER nova",
    ]


def test_dockerfile_of_an_image_with_nothing():
    # Without scripts there is no COPY: Docker refuses one without a source.
    assert build.dockerfile("haproxy", Image()) == 'FROM mrkolla-base:1\nLABEL name="haproxy"\n'


def test_every_image_has_a_context_with_its_scripts(tiny_fake_kolla, tmp_path):
    folder = tmp_path / "contexts"
    build.write_contexts(folder, tiny_fake_kolla / "docker")
    assert sorted(path.name for path in folder.iterdir()) == sorted(IMAGES)
    for name, image in IMAGES.items():
        files = {path.name: path for path in (folder / name).iterdir()}
        assert set(files) == {"Dockerfile", *image.scripts, *image.own}, name
        assert files["Dockerfile"].read_text() == build.dockerfile(name, image)
        for target, source in image.scripts.items():
            wanted = f"#!/bin/bash\n# {source}\n" if source else "#!/bin/bash\n"
            assert files[target].read_text() == wanted, (name, target)
            assert stat.S_IMODE(files[target].stat().st_mode) == 0o644


def test_an_image_gets_files_of_ours(tiny_fake_kolla, tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    (own / "server.py").write_text("# ours\n")
    monkeypatch.setattr(build, "HERE", own)
    image = Image({"kolla_extend_start": None}, "ansible", own={"server.py": ("/usr/local/bin/server", 0o755)})
    monkeypatch.setitem(IMAGES, "kolla-toolbox", image)
    assert "COPY server.py /usr/local/bin/server" in build.dockerfile("kolla-toolbox", image).splitlines()
    build.write_contexts(tmp_path / "contexts", tiny_fake_kolla / "docker")
    copy = tmp_path / "contexts" / "kolla-toolbox" / "server.py"
    # Docker takes the mode over from the context.
    assert (copy.read_text(), stat.S_IMODE(copy.stat().st_mode)) == ("# ours\n", 0o755)
    for name in ("root.py", "clustercheck.sh"):
        (own / name).write_text("")
    before = build.mark(release("2025.1"))
    (own / "server.py").write_text("# ours, changed\n")
    assert build.mark(release("2025.1")) != before


def test_files_of_ours_are_there_and_hide_no_script():
    for name, image in IMAGES.items():
        assert not {*image.own} & {*image.scripts, "Dockerfile"}, name
        assert [own for own in image.own if not (build.HERE / own).is_file()] == [], name


def tiny_contexts(folder, names):
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "Dockerfile").write_text(f"FROM x\n# {name}\n")
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A stand-in for the builder host: ssh's command runs here, ``docker`` is the script that is given."""
    programs = tmp_path / "bin"
    programs.mkdir()

    class Here:
        def ssh(self, *argv):
            return list(argv)

    def make(docker: str):
        (programs / "docker").write_text(docker)
        (programs / "docker").chmod(0o755)
        return Here()

    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(build, "BUILD_ALL", build.BUILD_ALL.replace("/root/contexts", str(tmp_path / "there")))
    return make


def test_all_images_are_built_in_one_go_and_told_one_by_one(here, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "IMAGES", dict.fromkeys(("a", "b", "c"), Image()))
    contexts = tiny_contexts(tmp_path / "contexts", ("a", "b", "c"))
    host = here(
        "#!/bin/sh\nfor word; do last=$word; done\n"
        f'grep -q "# $last" $last/Dockerfile && echo "$*" >> {tmp_path}/said\n'
    )
    told = []
    build.build_all(host, contexts, release("2025.1"), tmp_path / "log", told.append)
    assert sorted(line.split(": ")[1] for line in told) == ["a", "b", "c"]
    assert [line.split(":")[0] for line in told] == [f"image {n} of 3" for n in (1, 2, 3)]
    said = (tmp_path / "said").read_text().splitlines()
    tags = [f"build -q --network none -t mrkolla.local/openstack.kolla/{n}:2025.1-debian-trixie {n}" for n in "abc"]
    assert sorted(said) == tags


def test_an_image_that_cannot_be_built_is_named_with_dockers_word(here, tmp_path):
    contexts = tiny_contexts(tmp_path / "contexts", ("a", "b", "c"))
    host = here('#!/bin/sh\ncase "$*" in *" b") echo "Step 1"; echo "no such file: x" >&2; exit 1;; esac\n')
    with pytest.raises(DeployError, match=r"building image b: no such file: x; log: "):
        build.build_all(host, contexts, release("2025.1"), tmp_path / "log", lambda text: None)


def test_a_script_that_a_release_lacks_is_an_error(tiny_fake_kolla, tmp_path):
    (tiny_fake_kolla / "docker" / "horizon" / "extend_start.sh").unlink()
    with pytest.raises(FileNotFoundError, match="horizon"):
        build.write_contexts(tmp_path / "contexts", tiny_fake_kolla / "docker")


def test_users_have_kollas_numbers(tiny_fake_kolla, tmp_path):
    root.write_users(tmp_path, tiny_fake_kolla / "kolla" / "common" / "users.py")
    passwd = {line.split(":")[0]: line.split(":") for line in (tmp_path / "passwd").read_text().splitlines()}
    assert sorted(passwd) == ["ansible", "kolla", "libvirt", "nova", "qemu"]
    assert passwd["nova"] == ["nova", "x", "42436", "42436", "", "/var/lib/nova", "/usr/sbin/nologin"]
    # A user whose group has another name: that group is made once, with its own number.
    assert passwd["libvirt"][2:4] == ["42495", "42427"]
    groups = {line.split(":")[0]: line.split(":")[2:] for line in (tmp_path / "group").read_text().splitlines()}
    assert groups["qemu"] == ["42427", ""]
    assert "libvirt" not in groups
    # Kolla's scripts and log folder are for the members of its group.
    assert groups["kolla"] == ["42400", "ansible,libvirt,nova,qemu"]
    assert len((tmp_path / "group").read_text().splitlines()) == len(groups)
    shadow = [line.split(":") for line in (tmp_path / "shadow").read_text().splitlines()]
    assert {line[0]: line[1] for line in shadow} == dict.fromkeys(passwd, "!")
    assert all(len(line) == 9 for line in shadow)


def test_users_of_the_release_are_whole(kolla_sources, tmp_path):
    root.write_users(tmp_path, kolla_sources.users)
    lines = [line.split(":") for line in (tmp_path / "passwd").read_text().splitlines()]
    known = {line[0] for line in lines}
    assert len(known) == len(lines)
    assert {image.user for image in IMAGES.values() if image.user} <= known
    assert len({line[2] for line in lines}) == len(lines)
    numbers = {line.split(":")[2] for line in (tmp_path / "group").read_text().splitlines()}
    assert {line[3] for line in lines} <= numbers


def test_every_script_of_the_recipe_is_in_the_release(kolla_sources):
    docker = kolla_sources.docker
    wanted = {*BASE_SCRIPTS, *SUDOERS, *(s for image in IMAGES.values() for s in image.scripts.values() if s)}
    assert [name for name in sorted(wanted) if not (docker / name).is_file()] == []


def test_a_start_script_finds_the_one_that_it_calls(kolla_sources):
    # A project's base script sources /usr/local/bin/kolla_PROJECT_extend_start: without it the container ends.
    docker = kolla_sources.docker
    for name, image in IMAGES.items():
        for source in filter(None, image.scripts.values()):
            for line in (docker / source).read_text().splitlines():
                word = line.strip().partition("/usr/local/bin/kolla_")[2].split()
                if line.strip().startswith((". /usr/local/bin/kolla_", "source /usr/local/bin/kolla_")):
                    called = f"kolla_{word[0]}"
                    assert called in image.scripts or called in BASE_SCRIPTS.values(), (name, called)


def test_the_toolbox_keeps_no_log(kolla_sources, tmp_path):
    """Kolla's /var/log/kolla/ansible.log (0664) has the admin's password among the arguments of its modules."""
    there = root.Root(tmp_path, tmp_path / "log")
    there.install(kolla_sources.docker / "kolla-toolbox/ansible.cfg", "etc/ansible/ansible.cfg", 0o644)
    assert "log_path" in (tmp_path / "etc/ansible/ansible.cfg").read_text()
    root.no_log(there)
    assert "log" not in (tmp_path / "etc/ansible/ansible.cfg").read_text()


def test_names_of_scripts_and_packages_stand_once():
    assert len(set(BASE_SCRIPTS.values())) == len(BASE_SCRIPTS)
    assert len(set(recipe.PACKAGES)) == len(recipe.PACKAGES)
    assert recipe.tag("2025.1") == "2025.1-debian-trixie"


def test_the_mark_changes_with_the_recipe(monkeypatch):
    before = build.mark(release("2025.1"))
    assert build.mark(release("2025.1")) == before
    monkeypatch.setitem(IMAGES, "horizon", Image({}, "horizon"))
    assert build.mark(release("2025.1")) != before


def test_the_command_that_registers_a_region_is_in_the_image():
    text = (PLAYBOOKS / "mrkolla-register-region.yml").read_text()
    called = re.findall(r"exec keystone (\S+)", text)
    assert called
    assert set(called) <= set(BASE_SCRIPTS.values())
