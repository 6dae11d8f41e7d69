"""Experiments of learning through the solver: each module is one command, with seeds, their spread and a figure.

Records and figures go to `benchmarks/results/learning/`. They are experiments, not timings of kernels: what is
reported first is the error against a known truth or withheld data, then what it took.
"""
