"""The tests, and under `zoo` the real models they run on."""
