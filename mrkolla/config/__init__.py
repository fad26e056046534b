"""The experiment file: read, checked, typed. ``load("configs/two_regions.yaml")`` gives an :class:`Experiment`."""

from mrkolla.config.base import Bool, Float, Int, Text
from mrkolla.config.bench import ProbeOptions, ToolOptions
from mrkolla.config.faults import FaultOptions, Lasts, LinkFaultOptions, PlaceFaultOptions
from mrkolla.config.load import from_dict, load, load_region, load_testbed
from mrkolla.config.model import Experiment, known_releases
from mrkolla.config.points import Point
from mrkolla.config.schema import schema
from mrkolla.config.sections import (
    AdminRegion,
    CloudKolla,
    Images,
    Keystone,
    Kolla,
    Region,
    Sweep,
    Wan,
    one_form,
    wrong_name,
)
from mrkolla.config.testbeds import LocalTestbed, TestbedOptions

__all__ = [
    "AdminRegion",
    "Bool",
    "CloudKolla",
    "Experiment",
    "FaultOptions",
    "Float",
    "Images",
    "Int",
    "Keystone",
    "Kolla",
    "Lasts",
    "LinkFaultOptions",
    "LocalTestbed",
    "PlaceFaultOptions",
    "Point",
    "ProbeOptions",
    "Region",
    "Sweep",
    "TestbedOptions",
    "Text",
    "ToolOptions",
    "Wan",
    "from_dict",
    "known_releases",
    "load",
    "load_region",
    "load_testbed",
    "one_form",
    "schema",
    "wrong_name",
]
