"""A cloud that is deployed: its n+1 runs, its settings, its members, its copies."""
