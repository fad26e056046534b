"""Kolla: pinned releases, named edits, the plan of n+1 runs, the runs themselves."""
