"""Testbeds: each gives hosts and networks as enoslib's providers do. One package a testbed."""
