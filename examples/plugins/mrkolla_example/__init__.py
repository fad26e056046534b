"""Plug-ins for mrkolla: the testbed rack and the tool timed."""
