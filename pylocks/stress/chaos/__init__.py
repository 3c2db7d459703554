"""``pylocks stress --chaos``: participants are killed, stopped and interrupted while they are verified."""
