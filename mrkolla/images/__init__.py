"""Container images that kolla-ansible takes for Kolla's own."""
