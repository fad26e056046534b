#!/usr/bin/env python3
# fmt: off
#OAR -n keystone_place
#OAR -l nodes=5,walltime=12:00:00
#OAR --stdout keystone_place.%jobid%.out
#OAR --stderr keystone_place.%jobid%.err
# fmt: on
"""Where should Keystone be, and what does that cost?

Four clouds of one admin region (AR) and two OpenStack regions (OSR1, OSR2), one after the other: with Keystone in the
AR alone; with one in each OSR, too, on the AR's database; on a copy of that database which follows it; and on a member
of the AR's Galera cluster. On each,
tokens are issued and validated, images listed with a token that Glance has not seen, and users made, from both OSRs at
the same time, at several round trips. Then OSR1's link is cut for two minutes, under load that does not wait. Reported
are, for each place, what reading and writing cost at a distance, and what still works without the AR.
"""

import json
from dataclasses import replace
from pathlib import Path

import _environment  # noqa: F401 (finds mrkolla without an activated environment)

import mrkolla
from mrkolla import config
from mrkolla.base import files
from mrkolla.base.errors import InputError
from mrkolla.results import RunFolder
from mrkolla.results.figures.style import data
from mrkolla.results.places import places, places_figure, places_grid
from mrkolla.results.tables import render

TOPOLOGIES = ("central", "remote_db", "replica", "galera")


def main() -> None:
    options = mrkolla.options(__file__, __doc__)
    blackout = options.file.with_name(f"{options.file.stem}_blackout.yaml")
    series = options.results / f"{options.file.stem}.json"  # runs that are done, of a series that was cut off
    done = {} if options.new else runs_of(series)
    runs = []
    for topology in TOPOLOGIES:
        for file in (options.file, blackout):  # of one name: they share a cloud
            key = f"{topology} {file.name} {config.load(file, options.testbed).digest()}"
            if key in done:
                runs.append(RunFolder.find(options.results, done[key]))
                continue
            run_options = replace(options, file=file, destroy=file == blackout)
            with mrkolla.up(run_options, topology=topology) as cloud:
                for point in cloud.sweep():
                    with cloud.wan(point.rtt_ms) as links:
                        cloud.bench(point, links)
                cloud.report()
            runs.append(cloud.folder)
            done[key] = cloud.folder.name
            files.write(series, json.dumps(done, indent=2) + "\n")
    series.unlink(missing_ok=True)
    table = places(runs)
    (options.results / "keystone_place.png").write_bytes(data(places_figure(table), "png"))
    print(render(places_grid(table).rich()))


def runs_of(series: Path) -> dict[str, str]:
    """The runs that are done of the series which that file is of: what was measured -> the run's name."""
    try:
        done = json.loads(series.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as damaged:
        raise InputError(f"{series}: cannot be read: {damaged}; --new measures the whole series again") from None
    if not isinstance(done, dict) or not all(isinstance(name, str) for name in done.values()):
        raise InputError(f"{series}: not as this script writes it; --new measures the whole series again")
    return done


if __name__ == "__main__":
    mrkolla.main(main)
