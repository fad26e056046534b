"""``mrkolla graph``: every region, host and link of a file, in a terminal and as SVG."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mrkolla import config
from mrkolla.cli import main as cli
from mrkolla.config import drawing
from mrkolla.config.placement import wanted

TOP = Path(__file__).parents[2]
#: Experiment files; the others have a testbed's section alone.
FILES = sorted(path for path in (TOP / "configs").glob("*.yaml") if "\nregions:" in path.read_text())

pytestmark = pytest.mark.usefixtures("signals")


def call(*argv: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in argv])
    return ended.value.code or 0


def words(svg: str) -> list[str]:
    return [element.text for element in ElementTree.fromstring(svg).iter() if element.text and element.text.strip()]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_every_region_and_host_is_in_both(file, capsys):
    experiment = config.load(file)
    assert call("graph", file) == 0
    tree = capsys.readouterr().out
    drawn = words(drawing.svg(experiment))
    for host in wanted(experiment):
        assert host.name in drawn and host.name in tree
        assert host.region in drawn
    assert tree.count("round trip") == sum("round trip" in word for word in drawn) == len(experiment.regions)


def test_a_link_has_its_own_round_trips_and_properties(experiment):
    made = experiment(
        wan={"jitter_ms": 2, "loss_percent": 0.5, "bandwidth_mbit": 100},
        sweep={"rtt_ms": [10, {"OSR1": 20, "OSR2": 300}]},
    )
    one, two = drawing.parts(made)[1:]
    assert one.link == ["round trip 10, 20 ms", "± 2 ms, 0.5 % lost, 100 Mbit/s"]
    assert two.link[0] == "round trip 10, 300 ms"


def test_many_hosts_and_round_trips_are_told_by_the_first_and_the_last(experiment):
    regions = [{"name": "OSR1", "compute": 40, "compute_driver": "fake", "fake_computes": 400}]
    made = experiment(regions=regions, sweep={"rtt_ms": list(range(9))})
    osr = drawing.parts(made)[1]
    assert osr.hosts[-1] == ("osr1-compute1 … osr1-compute40", "compute (fake × 10)")
    assert osr.link == ["round trip 0, …, 8 ms"]


def test_regions_do_not_overlap(experiment):
    made = experiment(regions=[{"name": f"OSR{n}", "compute": n} for n in range(1, 7)])
    root = ElementTree.fromstring(drawing.svg(made))
    boxes = [
        {key: float(rect.get(key)) for key in ("x", "y", "width", "height")}
        for rect in root.iter("{http://www.w3.org/2000/svg}rect")
        if rect.get("fill") == "#dcecf7"
    ]
    assert len(boxes) == 6
    for above, below in pairwise(boxes):
        assert above["y"] + above["height"] < below["y"]
    assert boxes[-1]["y"] + boxes[-1]["height"] < float(root.get("height"))


def test_it_is_written_where_it_is_asked_for_and_as_svg_alone(tmp_path, capsys):
    file = TOP / "configs/two_regions.yaml"
    assert call("graph", file, "-o", tmp_path / "x.svg") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'x.svg'}\n"
    assert (tmp_path / "x.svg").read_text() == drawing.svg(config.load(file))
    for wrong in (tmp_path / "x.png", tmp_path / "nowhere" / "x.svg"):
        assert call("graph", file, "-o", wrong) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.svg"]


def test_the_readmes_picture_is_of_the_shipped_file():
    drawn = drawing.svg(config.load(TOP / "configs/two_regions.yaml"))
    stored = (TOP / "docs/figures/two_regions.svg").read_text()
    assert stored == drawn, "mrkolla graph configs/two_regions.yaml -o docs/figures/two_regions.svg"
