"""The tests: ``unit`` needs no server, ``integration`` starts real ones, ``acceptance`` all of it."""
