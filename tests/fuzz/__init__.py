"""Fuzzing, run by hand for hours and by `.ci/run` for a minute: readers in Python, kernels in C++."""
