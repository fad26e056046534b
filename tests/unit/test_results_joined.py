"""Several runs as one report: what is a repeat, what differs, what cannot be joined."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from mrkolla import results
from mrkolla.base.errors import InputError
from mrkolla.cli import main as cli
from mrkolla.results import joined
from tests import synthetic
from tests.unit.test_results_report import read

OPERATIONS = {k: synthetic.OPERATIONS[k] for k in ("token_validate", "glance_cached_token")}


def made(folder: Path, name: str, *, k: float = 1.0, operations=None, **changes) -> results.RunFolder:
    """A run whose validations wait for ``k`` round trips; ``changes`` are those of its experiment file."""
    of = operations or {**OPERATIONS, "token_validate": (k, *OPERATIONS["token_validate"][1:])}
    run = synthetic.run(folder, name=name, rtts=(0, 50, 100), samples=12, operations=of)
    file = run.read_yaml("experiment.yaml")
    run.write_json("experiment.yaml", {**file, **changes})
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three repeats, and one with another topology; read only."""
    folder = tmp_path_factory.mktemp("results")
    for number, k in enumerate((1.0, 1.1, 1.3), 1):
        made(folder, f"array_{number}", k=k, sweep={"rtt_ms": [0, 50, 100], "repetitions": 1, "seed": number})
    made(folder, "array_4", k=2.0, keystone={"hash_rounds": None, "keep_alive": None, "topology": "replica"})
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return joined.join([results.RunFolder.find(folder, f"array_{number}") for number in (1, 2, 3, 4)])


def test_repeats_are_averaged_over_the_runs(found):
    over = found.over[(found.over["scenario"] == "token_validate") & (found.over["origin_region"] == "OSR1")]
    assert list(over["runs"]) == [3, 1]
    fits = found.named(found.analysis.fits)
    own = fits[(fits["scenario"] == "token_validate") & (fits["origin_region"] == "OSR1")]
    k = own["k_wire"].to_numpy()[:3]
    half = student.ppf(0.975, 2) * k.std(ddof=1) / np.sqrt(3)
    assert np.allclose(k, [1.0, 1.1, 1.3], atol=0.01)
    row = over.iloc[0]
    assert (row["k_wire"], row["k_wire_low"], row["k_wire_high"]) == pytest.approx(
        (k.mean(), k.mean() - half, k.mean() + half)
    )
    assert over["k_wire_low"].isna().iloc[1], "a single run says nothing of runs"


def test_what_the_files_differ_in_is_a_column(found):
    assert found.factors == ["keystone.topology"]
    assert list(found.runs["keystone.topology"]) == ["–", "–", "–", "replica"]
    assert "sweep.seed" not in found.runs and "name" not in found.runs


def test_the_same_numbers_as_each_run_by_itself(found, folder):
    alone = results.analyse(results.RunFolder.find(folder, "array_2"))
    fits = found.named(found.analysis.fits)
    own = fits[fits["run"] == results.RunFolder.find(folder, "array_2").name]
    assert list(own["k"]) == list(alone.fits["k"]) and list(own["origin_region"]) == list(alone.fits["origin_region"])


def test_the_run_is_a_column_of_every_table(found, folder, tmp_path):
    grid = joined.each_grid(found)
    assert grid.head[:3] == ["operation", "from", "run"]
    rows = [row[:3] for row in grid.rows if row[0] == "token_validate"]
    assert rows == [["token_validate", region, f"array_{n}"] for region in ("OSR1", "OSR2") for n in (1, 2, 3, 4)]
    path = joined.write(found, tmp_path / "out")
    for name, count in (("fits", 4 * 4), ("summary", 4 * 4 * 3)):
        lines = list(csv.DictReader((tmp_path / "out" / f"{name}.csv").open()))
        assert len(lines) == count and {line["run"][:6] for line in lines} == {"array_"}
    assert {line["runs"] for line in csv.DictReader((tmp_path / "out/over.csv").open())} == {"1", "3"}
    page = read(path)
    text = " ".join(" ".join(page.text).split())
    assert page.loads == [] and len(page.images) == 2
    assert "4 runs" in text and "array_3" in text and "replica" in text
    assert {f"{name}.{form}" for name in ("k_by_run", "latency_vs_rtt") for form in ("pdf", "svg", "png")} == {
        file.name for file in (tmp_path / "out/figures").iterdir()
    }


def test_runs_that_differ_in_how_they_were_made_are_marked(tmp_path):
    runs = [made(tmp_path, name) for name in ("one", "two")]
    record = runs[1].read_json("provenance.json")
    runs[1].write_json("provenance.json", {**record, "kolla_ansible": "20.1"})
    (said,) = joined.join(runs).remarks
    assert said == "The runs were not made by the same kolla_ansible: – (one); 20.1 (two)."


def test_operations_of_some_runs_alone_are_told(tmp_path):
    fewer = {"token_validate": OPERATIONS["token_validate"]}
    found = joined.join([made(tmp_path, "one"), made(tmp_path, "two", operations=fewer)])
    assert found.remarks == ["In one alone: probe: glance_cached_token."]


def test_an_operation_that_a_region_does_not_have_is_drawn_for_the_others(tmp_path):
    only = {"token_validate": OPERATIONS["token_validate"]}
    third = synthetic.run(tmp_path, name="three", rtts=(0, 50, 100), samples=12, operations=only,
                          regions=("OSR1", "OSR2", "OSR3"))  # fmt: skip
    path = joined.write(joined.join([made(tmp_path, "two"), third]), tmp_path / "out")
    assert (path.parent / "figures/k_by_run.svg").exists() and "OSR3" in path.read_text()


def test_one_without_a_slope_has_a_report(tmp_path):
    runs = [
        synthetic.run(tmp_path, name=name, rtts=(50,), samples=12, operations=OPERATIONS) for name in ("one", "two")
    ]
    page = read(joined.write(joined.join(runs), tmp_path / "out"))
    assert len(page.images) == 1


def test_two_runs_of_one_experiment_have_their_whole_names(tmp_path):
    runs = [made(tmp_path, "one"), made(tmp_path, "one")]
    assert list(joined.join(runs).runs.index) == [run.name for run in runs]


@pytest.fixture
def command(capsys, folder):
    def run(*argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["report", "--results", str(folder), *argv])
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return run


def test_the_command_joins(command, folder, tmp_path):
    code, out, err = command("array_1", "array_2", "array_3", "-o", str(tmp_path / "out"))
    assert (code, err) == (0, "")
    assert out.rstrip().endswith(str(tmp_path / "out" / "report.html"))
    assert "array_3" in out and "Over the runs that differ in name and seed alone" in out
    code, out, _ = command("array_1", "array_4", "--format", "json")
    told = json.loads(out)
    assert told["report"] == str(folder / "joined" / "report.html") and len(told["operations"]) == 8
    assert {row["keystone.topology"] for row in told["over"]} == {"–", "replica"}
    assert results.RunFolder.runs(folder)[-1].name.startswith("array_"), "what is joined is no run"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["array_1", "array_1"], "is given twice: join runs that differ"),
        (["array_1", "nothing"], "run 'nothing': neither a folder nor a run in"),
        (["array_1", ""], "'runs' is empty"),
        (["array_1", "--run", "array_2"], "name the run once: RUN, or --run RUN"),
        (["array_1", "-o", "out"], "-o is for several runs"),
    ],
)
def test_what_cannot_be_joined_is_one_line(command, argv, told):
    code, _, err = command(*argv)
    assert (code, told in err, err.count("\n")) == (2, True, 1), err


def test_a_run_folder_is_not_replaced(command, folder):
    code, _, err = command("array_1", "array_2", "-o", str(results.RunFolder.find(folder, "array_3").path))
    assert (code, "is a run folder: give another for the report of several runs" in err) == (2, True)


def test_runs_without_an_operation_in_common_are_refused(tmp_path):
    runs = [made(tmp_path, name, operations={of: OPERATIONS[of]})
            for name, of in (("one", "token_validate"), ("two", "glance_cached_token"))]  # fmt: skip
    told = "one and two cannot be joined: they have no operation in common (probe: token_validate | probe: glance_c"
    with pytest.raises(InputError) as refused:
        joined.join(runs)
    assert str(refused.value).startswith(told) and "\n" not in str(refused.value)


def test_one_run_may_be_named_without_an_option(command, tmp_path):
    made(tmp_path, "alone")
    code, out, _ = command("--results", str(tmp_path), "alone")
    assert code == 0 and out.rstrip().endswith("report.html")
