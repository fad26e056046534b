"""Which run folder an experiment fills: one that is unfinished is gone on with, and no other is."""

from __future__ import annotations

import pytest

from mrkolla.base.errors import InputError
from mrkolla.base.journal import Journal
from mrkolla.experiment.runs import choose_run, load_run
from mrkolla.results import RunFolder


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


def finish(folder: RunFolder) -> None:
    with Journal(folder.path / "journal.jsonl") as journal, journal.step("report"):
        pass


def test_a_new_one_has_the_experiment(experiment, results):
    made = choose_run(experiment(), results, None, new=False)
    assert made.path.parent == results and made.name.startswith("demo-")
    assert load_run(results, None)[1].digest() == experiment().digest()


def test_an_unfinished_one_is_gone_on_with_until_its_report_is_done(experiment, results):
    first = choose_run(experiment(), results, None, new=False)
    with Journal(first.path / "journal.jsonl") as journal:
        with journal.step("point a"):
            pass
        with pytest.raises(ValueError, match="cut off"), journal.step("report"):
            raise ValueError("cut off")
    assert choose_run(experiment(), results, None, new=False).path == first.path
    finish(first)
    assert choose_run(experiment(), results, None, new=False).path != first.path


def test_the_newest_unfinished_one_is_taken(experiment, results):
    first = choose_run(experiment(), results, None, new=False)
    second = choose_run(experiment(), results, None, new=True)
    assert second.path != first.path
    assert choose_run(experiment(), results, None, new=False).path == second.path
    finish(second)
    assert choose_run(experiment(), results, None, new=False).path == first.path


@pytest.mark.parametrize("sections", [{"name": "other"}, {"sweep": {"repetitions": 9}}])
def test_one_of_another_experiment_is_left_alone(experiment, results, sections):
    first = choose_run(experiment(), results, None, new=False)
    assert choose_run(experiment(**sections), results, None, new=False).path != first.path


def test_one_whose_experiment_cannot_be_read_is_left_alone(experiment, results):
    first = choose_run(experiment(), results, None, new=False)
    (first.path / "experiment.yaml").write_text("name: [")
    assert choose_run(experiment(), results, None, new=False).path != first.path


def test_a_run_that_is_named_must_be_of_this_experiment(experiment, results):
    first = choose_run(experiment(), results, None, new=False)
    finish(first)
    assert choose_run(experiment(), results, first.name, new=False).path == first.path
    with pytest.raises(InputError, match=f"--run {first.name}: it was made from another experiment file"):
        choose_run(experiment(sweep={"seed": 2}), results, first.name, new=False)


def test_results_that_are_a_file(experiment, tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(InputError, match="it is a file; give a folder"):
        choose_run(experiment(), tmp_path / "results", None, new=False)


def test_a_run_without_its_experiment_is_named(experiment, results):
    made = choose_run(experiment(), results, None, new=False)
    with Journal(made.path / "journal.jsonl"):
        pass
    (made.path / "experiment.yaml").unlink()
    with pytest.raises(InputError, match=r"experiment.yaml is missing|is not a run folder"):
        load_run(results, made.name)


def test_a_damaged_journal_of_another_experiment_is_no_matter(experiment, results):
    first = choose_run(experiment(sweep={"repetitions": 9}), results, None, new=False)
    (first.path / "journal.jsonl").write_text("damaged\n")
    assert choose_run(experiment(), results, None, new=False).path != first.path
    with pytest.raises(InputError, match=r"journal\.jsonl:1: not a record of the journal"):
        choose_run(experiment(sweep={"repetitions": 9}), results, None, new=False)
