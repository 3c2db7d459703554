"""``pylocks stress``: real processes fight over real locks, and check that those are locks."""
