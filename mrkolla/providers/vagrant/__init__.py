"""The testbed ``vagrant``: machines that Vagrant starts on this one."""
