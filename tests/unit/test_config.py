"""The experiment file: what is refused and in which words, what comes back the same, what the schema says."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from mrkolla import config
from mrkolla.base.errors import InputError

TWO_REGIONS = Path(__file__).parents[2] / "configs" / "two_regions.yaml"

BASE = """\
name: demo
release: "2025.1"
testbed:
  kind: local
images: {source: build}
kolla: {globals: {}, config: null}
keystone: {hash_rounds: null}
admin_region: {name: AR, control: 1}
regions:
  - name: OSR1
    compute: 1
  - name: OSR2
    compute: 1
wan: {driver: auto}
sweep:
  rtt_ms: [0, 50]
  repetitions: 2
bench:
  - tool: probe
    samples: 10
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file in the working folder and return its name, so that messages show short paths."""
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes, name: str = "x.yaml") -> str:
        Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
        return name

    return write


def refusal(*arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        config.load(*arguments, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


def changed(old: str, new: str) -> str:
    assert BASE.count(old) == 1, f"{old!r} is not exactly once in the base file"
    return BASE.replace(old, new)


# (text of the base file, its replacement, what the one line of the message must begin with, and hold)
BAD = [
    ("name: demo", "name: Demo", "x.yaml:1: name: ", "a-z or 0-9"),
    ("name: demo", "name: a/b", "x.yaml:1: name: ", "not allowed"),
    ("name: demo", f"name: {'a' * 41}", "x.yaml:1: name: ", "41 characters; take 40"),
    ("name: demo", "name: 12", "x.yaml:1: name: must be text, not 12", "in quotes"),
    ("name: demo\n", "", "x.yaml:1: name: key is missing", ""),
    ("name: demo", "nam: demo\nname: demo", "x.yaml:1: nam: unknown key 'nam'", "did you mean 'name'?"),
    ("name: demo", "zzz: 1\nname: demo", "x.yaml:1: zzz: unknown key 'zzz'", "known: name, release"),
    ("name: demo", "name: demo\nname: again", "x.yaml:2: name: key is given twice", "first in line 1"),
    ("name: demo", "name: demo\n1: 2", "x.yaml:2: ", "the key 1 is read as something else"),
    ("name: demo", "name: !x demo", "x.yaml:1: name: ", "tag !x"),
    ("name: demo", "name: !!bool demo", "x.yaml:1: name: ", "'demo' is no !!bool; write a plain value"),
    ("name: demo", "name: !!int ''", "x.yaml:1: name: ", "'' is no !!int; write a plain value"),
    ("name: demo", "name: !!python/object:os.system {}", "x.yaml:1: name: ", "not allowed"),
    ('"2025.1"', "2025.1", "x.yaml:2: release: ", 'put it in quotes: "2025.1"'),
    ('"2025.1"', '"2025.2x"', "x.yaml:2: release: unknown release '2025.2x'", "did you mean '2025.2'?"),
    ('"2025.1"', "zebra", "x.yaml:2: release: unknown release 'zebra'", "known: 2025.1"),
    ("kind: local", "kind: locl", "x.yaml:4: testbed.kind: unknown kind 'locl'", "did you mean 'local'?"),
    ("kind: local", "network: 198.18.0.0/16", "x.yaml:3: testbed.kind: key is missing", "local"),
    ("testbed:\n  kind: local", "testbed: local", "x.yaml:3: testbed: must be a map", "kind"),
    ("kind: local", "kind: local\n  memory: 4", "x.yaml:5: testbed.memory: unknown key", "known: kind, network"),
    ("kind: local", "kind: local\n  network: 10.0.0.0/16", "x.yaml:5: testbed.network: ", "198.18.0.0/15"),
    ("kind: local", "kind: local\n  network: 198.18.1.0/16", "x.yaml:5: testbed.network: ", "mean '198.18.0.0/16'"),
    ("kind: local", "kind: local\n  network: 198.18.0", "x.yaml:5: testbed.network: ", "an IPv4 network such as"),
    ("kind: local", "kind: local\n  network: 198.18.0.0/23", "x.yaml:5: testbed.network: ", "take a /22"),
    ("source: build", "source: biuld", "x.yaml:5: images.source: must be one of", "did you mean 'build'?"),
    ("source: build", "source: registry", "x.yaml:5: images.registry: ", "needs its HOST:PORT"),
    ("source: build", "registry: h:5000", "x.yaml:5: images.registry: ", "source registry only, not build"),
    ("source: build", "source: registry, registry: host", "x.yaml:5: images.registry: ", "HOST:PORT, such as"),
    ("source: build", "source: registry, registry: 'h:70000'", "x.yaml:5: images.registry: ", "HOST:PORT"),
    ("source: build", "source: registry, registry: 'u:p@h:5000'", "x.yaml:5: images.registry: ", "HOST:PORT"),
    ("globals: {}", "globals: []", "x.yaml:6: kolla.globals: must be a map", ""),
    ("globals: {}", "globals: {x: .nan}", "x.yaml:6: kolla.globals.x: ", "finite"),
    ("globals: {}", "globals: {a: [{b_password: hunter2}]}", "x.yaml:6: kolla.globals.a[0].b_password: ", "secret"),
    ("globals: {}", "globals: {database_pass: hunter2}", "x.yaml:6: kolla.globals.database_pass: ", "secret"),
    ("globals: {}", "globals: {mypassword: hunter2}", "x.yaml:6: kolla.globals.mypassword: ", "secret"),
    ("globals: {}", "globals: {aws_access_key: hunter2}", "x.yaml:6: kolla.globals.aws_access_key: ", "secret"),
    ("globals: {}", "globals: {admin_password: [123456]}", "x.yaml:6: kolla.globals.admin_password: ", "secret"),
    ("globals: {}", "globals: {admin_password: 123456}", "x.yaml:6: kolla.globals.admin_password: ", "secret"),
    ("globals: {}", f"globals: {{a: {'[' * 60}{']' * 60}}}", "x.yaml:6: kolla.globals.a: ", "nested"),
    ("config: null", "config: nowhere", "x.yaml:6: kolla.config: ", "missing; give a folder, relative to this file"),
    ("config: null", "config: x.yaml", "x.yaml:6: kolla.config: ", "not a folder"),
    ("hash_rounds: null", "hash_rounds: 3", "x.yaml:7: keystone.hash_rounds: must be 4 or more, not 3", ""),
    ("hash_rounds: null", "hash_rounds: 32", "x.yaml:7: keystone.hash_rounds: must be 31 or less, not 32", ""),
    ("hash_rounds: null", "keep_alive: 1", "x.yaml:7: keystone.keep_alive: must be true or false, not 1", ""),
    ("hash_rounds: null", "token_cache: -1", "x.yaml:7: keystone.token_cache: must be 0 or more, not -1", ""),
    ("control: 1", "control: 0", "x.yaml:8: admin_region.control: must be 1 or more, not 0", "control hosts"),
    ("control: 1", "compute: 1", "x.yaml:8: admin_region.compute: unknown key", ""),
    (
        "globals: {}",
        "globals: {ansible_connection: local}",
        "x.yaml:6: kolla.globals.ansible_connection: ",
        "Ansible's",
    ),
    ("globals: {}", "globals: {a: {ansible_host: x}}", "x.yaml:6: kolla.globals.a.ansible_host: ", "Ansible's"),
    ("globals: {}", "globals: {a: [1, {b: {ansible_x: 1}}]}", "x.yaml:6: kolla.globals.a[1].b.ansible_x: ", "own"),
    ("control: 1", "kolla: {globals: {Ansible_Host: x}}", "x.yaml:8: admin_region.kolla.globals.Ansible_Host: ", "own"),
    ("control: 1", "kolla: {global: {}}", "x.yaml:8: admin_region.kolla.global: unknown key", "mean 'globals'?"),
    ("{name: AR, control: 1}", "", "x.yaml:8: admin_region: must be a map of keys and values, not empty", ""),
    ("name: AR", "name: osr2", "x.yaml:12: regions[1].name: 'OSR2' is the admin region's name", ""),
    ("name: OSR2", "name: OSR1", "x.yaml:12: regions[1].name: 'OSR1' is taken by regions[0]", "a name of its own"),
    ("name: OSR2", "name: osr1", "x.yaml:12: regions[1].name: 'osr1' is taken by regions[0] ('OSR1'", ""),
    (
        "name: OSR2",
        "name: OSR_x\n  - name: OSR-x",
        "x.yaml:13: regions[2].name: 'OSR-x' is taken by regions[1]",
        "too alike",
    ),
    ("name: OSR2", "name: 2OSR", "x.yaml:12: regions[1].name: ", "begin with a letter"),
    ("name: OSR2", 'name: "OSR 2"', "x.yaml:12: regions[1].name: ", "begin with a letter"),
    ("name: OSR2", 'name: "OSR2\\n"', "x.yaml:12: regions[1].name: ", "begin with a letter"),
    ("name: OSR2", f"name: {'R' * 33}", "x.yaml:12: regions[1].name: ", "33 characters; take 32"),
    ("OSR2\n    compute: 1", "OSR2\n    compute: 0", "x.yaml:13: regions[1].compute: must be 1 or more, not 0", ""),
    ("OSR2\n    compute: 1", "OSR2\n    computes: 1", "x.yaml:13: regions[1].computes: ", "mean 'compute'?"),
    ("OSR2\n    compute: 1", "OSR2\n    compute: 1.0", "x.yaml:13: regions[1].compute: ", "whole number"),
    ("OSR2\n    compute: 1", "OSR2\n    compute: yes", "x.yaml:13: regions[1].compute: ", "whole number"),
    ("OSR2\n    compute: 1", 'OSR2\n    compute: "1"', "x.yaml:13: regions[1].compute: ", "whole number"),
    ("OSR2\n    compute: 1", "OSR2\n    control: 0", "x.yaml:13: regions[1].control: must be 1 or more", ""),
    ("OSR2\n    compute: 1", "OSR2\n    network: -1", "x.yaml:13: regions[1].network: must be 0 or more", ""),
    ("OSR2\n    compute: 1", "OSR2\n    fake_computes: 5", "x.yaml:13: regions[1].fake_computes: ", "driver fake only"),
    ("OSR2\n    compute: 1", "OSR2\n    compute_driver: lxc", "x.yaml:13: regions[1].compute_driver: ", "qemu, kvm"),
    ("OSR2\n    compute: 1", "OSR2\n    kolla: {config: no}", "x.yaml:13: regions[1].kolla.config: ", "must be text"),
    ("  - name: OSR2\n    compute: 1\n", "  - OSR2\n", "x.yaml:12: regions[1]: must be a map", "not 'OSR2'"),
    ("driver: auto", "driver: nfqeue", "x.yaml:14: wan.driver: must be one of netem, nfqueue, auto", "'nfqueue'?"),
    ("driver: auto", "deploy_rtt_ms: -1", "x.yaml:14: wan.deploy_rtt_ms: must be 0 or more", ""),
    ("driver: auto", "loss_percent: 100", "x.yaml:14: wan.loss_percent: must be less than 100", ""),
    ("driver: auto", "bandwidth_mbit: 0", "x.yaml:14: wan.bandwidth_mbit: must be 0.1 or more, not 0", "null: no cap"),
    ("driver: auto", "bandwidth_mbit: 1.0e+9", "x.yaml:14: wan.bandwidth_mbit: must be 100000 or less", "null: no cap"),
    ("[0, 50]", "[0, -5]", "x.yaml:16: sweep.rtt_ms[1]: must be 0 or more, not -5", ""),
    ("[0, 50]", "[0, .inf]", "x.yaml:16: sweep.rtt_ms[1]: must be a finite number", ""),
    ("[0, 50]", "[0, .nan]", "x.yaml:16: sweep.rtt_ms[1]: must be a finite number", ""),
    ("[0, 50]", "[0, 50ms]", "x.yaml:16: sweep.rtt_ms[1]: must be a number, not '50ms'", ""),
    ("[0, 50]", "[0, true]", "x.yaml:16: sweep.rtt_ms[1]: must be a number", ""),
    (
        "[0, 50]",
        "[0, 600]\n  keystone: [{connect_timeout: 1}]",
        "x.yaml:17: sweep.keystone[0].connect_timeout: a timeout of 1 s is less than two round trips of 600 ms",
        "raise connect_",
    ),
    ("[0, 50]", "[]", "x.yaml:16: sweep.rtt_ms: must have at least 1 entry", ""),
    ("[0, 50]", "50", "x.yaml:16: sweep.rtt_ms: must be a list, not 50", ""),
    ("[0, 50]", "[50, 50.0]", "x.yaml:16: sweep.rtt_ms[1]: is the same as rtt_ms[0]", "raise repetitions"),
    ("[0, 50]", "[{OSR1: 5}]", "x.yaml:16: sweep.rtt_ms[0]: no RTT for OSR2", ""),
    ("[0, 50]", "[{OSR1: 5, OSR2: -1}]", "x.yaml:16: sweep.rtt_ms[0].OSR2: must be 0 or more", ""),
    ("[0, 50]", "[{OSR1: 5, OSR2: 5, OSR22: 6}]", "x.yaml:16: sweep.rtt_ms[0].OSR22: unknown region", "mean 'OSR2'?"),
    ("[0, 50]", "[{OSR1: 5, OSR2: 5, AR: 6}]", "x.yaml:16: sweep.rtt_ms[0].AR: ", "no link"),
    ("[0, 50]", "\n    - 0\n    - x", "x.yaml:18: sweep.rtt_ms[1]: must be a number", ""),
    ("repetitions: 2", "repetitions: 0", "x.yaml:17: sweep.repetitions: must be 1 or more", ""),
    ("repetitions: 2", "seed: a", "x.yaml:17: sweep.seed: must be a whole number", ""),
    ("tool: probe", "tool: porbe", "x.yaml:19: bench[0].tool: unknown tool 'porbe'", "did you mean 'probe'?"),
    ("tool: probe", "warmup: 1", "x.yaml:19: bench[0].tool: key is missing", "probe"),
    ("samples: 10", "samples: 0", "x.yaml:20: bench[0].samples: must be 1 or more", "per operation"),
    ("samples: 10", "smaples: 10", "x.yaml:20: bench[0].smaples: unknown key", "did you mean 'samples'?"),
    ("samples: 10", "warmup: -1", "x.yaml:20: bench[0].warmup: must be 0 or more", ""),
    ("samples: 10", "operations: [token_validat]", "x.yaml:20: bench[0].operations[0]: ", "mean 'token_validate'?"),
    ("samples: 10", "operations: []", "x.yaml:20: bench[0].operations: must have at least 1 entry", ""),
    ("samples: 10", "operations: [token_validate, token_validate]", "x.yaml:20: bench[0].operations: ", "twice"),
    ("samples: 10\n", "samples: 10\n  - tool: probe\n", "x.yaml:21: bench[1].tool: 'probe' is listed twice", ""),
]


@pytest.mark.parametrize(("old", "new", "begin", "inside"), BAD)
def test_bad_value_is_one_line_with_file_line_key_and_remedy(write, old, new, begin, inside):
    message = refusal(write(changed(old, new)))
    assert "\n" not in message, message
    assert message.startswith(begin), message
    assert inside in message, message


def test_base_of_the_bad_values_is_good(write):
    """Without this the table above could refuse for a reason of its own."""
    assert config.load(write(BASE)).regions[1].name == "OSR2"


def test_zero_regions_are_refused(write):
    text = BASE[: BASE.index("regions:")] + "regions: []\n" + BASE[BASE.index("wan:") :]
    assert refusal(write(text)) == "x.yaml:9: regions: must have at least 1 entry (the OSRs)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.yaml: the file is empty"),
        ("# nothing\n", "x.yaml: the file is empty"),
        ("- name: demo\n", "x.yaml:1: an experiment file is a map of keys, not a list"),
        ("demo\n", "x.yaml:1: an experiment file is a map of keys, not a single value"),
        ("name: [demo\nrelease: x\n", "x.yaml:2: not YAML: "),
        ("name: demo\n\tregions: 1\n", "x.yaml:2: not YAML: "),
        ("a: 1\n---\nb: 2\n", "x.yaml:2: not YAML: "),
        ("name: demo\nx: \x01\n", "x.yaml:2: not YAML: "),
        (b"name: demo\nx: \xff\n", "x.yaml:2: not text in UTF-8"),
        ("a: &a [*a]\n", "x.yaml: nested too deeply, or an alias that contains itself"),
        ("[" * 5000, "x.yaml: nested too deeply"),
        ("x: " + "y" * 1_000_001, "x.yaml: is larger than 1000 kB"),
        (
            "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            + "".join(
                f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcde", "bcdef", strict=True)
            ),
            "x.yaml: more than 100000 values",
        ),
    ],
)
def test_file_that_is_no_experiment_is_one_clear_line(write, text, message):
    said = refusal(write(text))
    assert said.startswith(message)
    assert "\n" not in said


def test_missing_file_and_folder(tmp_path):
    assert refusal(tmp_path / "no.yaml") == f"{tmp_path}/no.yaml: no such file; give the path of an experiment file"
    assert refusal(tmp_path) == f"{tmp_path}: is a folder; give the path of an experiment file"


def test_all_problems_are_listed_in_the_order_of_the_file(write):
    text = (
        changed("repetitions: 2", "repetitions: 0").replace("name: OSR2", "name: 2").replace("name: demo", "nme: demo")
    )
    lines = refusal(write(text)).splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["x.yaml:1", "name"],
        ["x.yaml:1", "nme"],
        ["x.yaml:12", "regions[1].name"],
        ["x.yaml:17", "sweep.repetitions"],
    ]


def test_dict_errors_name_the_source_and_the_key_path():
    with pytest.raises(InputError, match=r"^mine: regions\[0\]\.compute: must be 1 or more, not 0"):
        config.from_dict(yaml.safe_load(BASE) | {"regions": [{"name": "A", "compute": 0}]}, source="mine")
    with pytest.raises(InputError, match=r"^<dict>: an experiment is a map of keys, not list$"):
        config.from_dict([])


def test_round_trip_is_equal_and_keeps_the_digest(write, tmp_path):
    (tmp_path / "conf").mkdir()
    text = changed("globals: {}, config: null", "globals: {a: [1, 2.5, no, null, 'é: x'], b: 2025-01-01}, config: conf")
    text = text.replace("[0, 50]", "[0, {OSR1: 20, OSR2: 100.5}]")
    first = config.load(write(text))
    (tmp_path / "run").mkdir()
    again = config.load(write(first.dump(), "run/experiment.yaml"))
    assert again == first
    assert again.digest() == first.digest()
    assert again.dump() == first.dump()
    assert first.kolla.globals == {"a": [1, 2.5, False, None, "é: x"], "b": "2025-01-01"}
    assert first.kolla.config == str(tmp_path / "conf")


def test_run_folder_is_read_when_the_kolla_folder_is_gone(write, tmp_path):
    (tmp_path / "conf").mkdir()
    name = write(changed("config: null", "config: conf"))
    first = config.load(name)
    (tmp_path / "conf").rmdir()
    assert config.load(name, files=False) == first
    with pytest.raises(InputError, match="missing"):
        first.digest()


def test_digest_changes_with_values_and_with_the_files_of_the_kolla_folder_only(write, tmp_path):
    plain = config.load(write(BASE)).digest()
    assert config.load(write("# a comment\n" + BASE)).digest() == plain
    assert config.load(write(changed("rtt_ms: [0, 50]", "rtt_ms: [0.0, 50.0]"))).digest() == plain
    assert config.load(write(changed("samples: 10", "samples: 11"))).digest() != plain

    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "nova.conf").write_text("[DEFAULT]\n")
    one = config.load(write(changed("config: null", "config: one"))).digest()
    assert config.load(write(changed("config: null", "config: two"))).digest() == one != plain
    (tmp_path / "two" / "nova.conf").write_text("[DEFAULT]\ndebug = true\n")
    assert config.load(write(changed("config: null", "config: two"))).digest() != one


def test_merge_keys_and_aliases(write):
    regions = "  - &first\n    name: OSR1\n    compute: 3\n  - name: OSR2\n    <<: *first\n    control: 2\n"
    text = BASE[: BASE.index("  - name: OSR1")] + regions + BASE[BASE.index("wan:") :]
    second = config.load(write(text)).regions[1]
    assert (second.name, second.compute, second.control) == ("OSR2", 3, 2)


def test_overlay_replaces_the_testbed_alone(write):
    write("testbed:\n  kind: local\n  network: 198.19.0.0/16\n", "bed.yaml")
    base = config.load(write(BASE))
    other = config.load("x.yaml", overlay="bed.yaml")
    assert other.testbed.network == "198.19.0.0/16"
    assert other.model_copy(update={"testbed": base.testbed}) == base
    # The file itself may leave the testbed to the overlay, or have one that this machine cannot use.
    for section in ("", "testbed: {kind: g5k, nodes: 3}\n"):
        write(changed("testbed:\n  kind: local\n", section))
        assert config.load("x.yaml", overlay="bed.yaml") == other


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("testbed: {kind: local}\nname: other\n", "bed.yaml:2: name: a testbed file has the section 'testbed' alone"),
        ("\ntestbad: {kind: local}\n", "bed.yaml:2: testbed: key is missing; did you mean that by 'testbad'?"),
        ("testbed:\n  kind: local\n  net: 1\n", "bed.yaml:3: testbed.net: unknown key 'net'"),
        (
            "testbed:\n  network: 198.18.0.0/16\n",
            "bed.yaml:1: testbed.kind: key is missing; one of: g5k, local, static",
        ),
        ("testbed:\n", "bed.yaml:1: testbed: must be a map with the key 'kind'"),
        ("", "bed.yaml: the file is empty; a testbed file is a map of keys"),
    ],
)
def test_bad_overlay_is_named(write, text, message):
    write(text, "bed.yaml")
    assert message in refusal(write(BASE), overlay="bed.yaml")


def test_points_cover_the_sweep_once_a_repetition_in_a_seeded_order(write):
    sweep = "rtt_ms: [0, 20, 50, 100, {OSR1: 20, OSR2: 100.5}]"
    exp = config.load(write(changed("rtt_ms: [0, 50]", sweep)))
    points = exp.points()
    assert points == exp.points()
    assert [point.repetition for point in points] == [1] * 5 + [2] * 5
    labels = ["rtt0", "rtt20", "rtt50", "rtt100", "rtt20+100.5"]
    for repetition in (1, 2):
        ids = [point.id for point in points if point.repetition == repetition]
        assert sorted(ids) == sorted(f"{label}-r{repetition}" for label in labels)
    by_id = {point.id: point.rtt_ms for point in points}
    assert by_id["rtt20+100.5-r1"] == {"OSR1": 20.0, "OSR2": 100.5}
    assert by_id["rtt50-r2"] == {"OSR1": 50.0, "OSR2": 50.0}

    def order(**sweep):
        changes = {"sweep": exp.sweep.model_copy(update=sweep)}
        return [point.id for point in exp.model_copy(update=changes).points()]

    assert [i[:-1] for i in order()[:5]] != [i[:-1] for i in order()[5:]], "each repetition has an order of its own"
    assert order(repetitions=4)[:10] == order(), "more repetitions leave the earlier ones as they are"
    assert any(order(seed=seed) != order() for seed in range(2, 5))


def test_point_ids_are_short_file_names_with_many_regions():
    regions = [{"name": f"R{i}"} for i in range(60)]
    rtts = [{f"R{i}": i + shift for i in range(60)} for shift in (0.25, 0.5)]
    values = yaml.safe_load(BASE) | {"regions": regions, "sweep": {"rtt_ms": rtts, "repetitions": 1}}
    ids = {point.id for point in config.from_dict(values).points()}
    assert len(ids) == 2
    assert all(len(i) < 120 and "/" not in i for i in ids)


def test_annotated_example_shows_the_defaults(write):
    """What its comments call the default is the default: only what DESIGN's example sets differs from a bare file."""
    minimal = {"name": "two_regions", "release": "2025.1", "testbed": {"kind": "local"}}
    minimal["regions"] = [{"name": "OSR1"}, {"name": "OSR2"}]
    minimal["sweep"] = {"rtt_ms": [0, 50, 200], "repetitions": 7, "precision": 0.02}
    minimal["bench"] = [{"tool": "probe", "samples": 4, "warmup": 1}]
    assert config.load(TWO_REGIONS) == config.from_dict(minimal)
    del minimal["sweep"]["rtt_ms"]
    assert config.from_dict(minimal).sweep.rtt_ms == (0, 20, 50, 100, 200)


def test_example_satisfies_the_schema_and_the_schema_can_refuse():
    content = json.loads((TWO_REGIONS.parent / "experiment.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(content)
    check = jsonschema.Draft202012Validator(content)
    good = yaml.safe_load(TWO_REGIONS.read_text())
    check.validate(good)
    # With every key of the model: `mrkolla schema > configs/experiment.schema.json` adds what is missing.
    check.validate(yaml.safe_load(config.load(TWO_REGIONS).dump()))
    for change in (
        {"nam": "x"},
        {"name": "Two Regions"},
        {"release": 2025.1},
        {"regions": []},
        {"regions": [{"name": "OSR1", "compute": 0}]},
        {"regions": [{"name": "1", "compute": 1}]},
        {"testbed": {"kind": "lcal"}},
        {"testbed": {}},
        {"sweep": {"rtt_ms": [-1]}},
        {"sweep": {"rtt_ms": ["x"]}},
        {"bench": [{"tool": "probe", "samples": 0}]},
        {"bench": [{"samples": 5}]},
    ):
        assert not check.is_valid(good | change), change


def test_releases_are_those_that_can_be_deployed():
    assert "2025.1" in config.known_releases()


def test_values_cannot_be_changed():
    exp = config.load(TWO_REGIONS)
    with pytest.raises(ValueError, match="frozen"):
        exp.regions[0].compute = 5


@pytest.mark.parametrize("name", ["loop.yaml", "x" * 300])
@pytest.mark.parametrize("section", ["task", "traffic"])
def test_a_file_that_cannot_be_looked_at_is_a_problem_of_its_key(write, section, name):
    Path("loop.yaml").symlink_to("loop.yaml")
    text = {
        "task": changed("  - tool: probe\n    samples: 10\n", f"  - tool: rally\n    tasks: [{name}]\n"),
        "traffic": BASE + f"synthetic: {{traffic: {name}}}\n",
    }[section]
    key = {"task": "bench[0].tasks", "traffic": "synthetic.traffic"}[section]
    said = refusal(write(text))
    assert said.count("\n") == 0
    assert key in said and "cannot be read" in said
