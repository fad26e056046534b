"""Testbed ``g5k``: nodes of Grid'5000 by enoslib, or those of the OAR job that this process runs in."""
