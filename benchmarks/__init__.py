"""Timed cases, each against what a user would otherwise write, and never without a green check.

registry.py      the cases, by name
run.py           runs them, each measurement in a process of its own, and writes results/*.json
report.py        prints the results as tables, and puts them into the README
measure.py       processor time, peak memory, machine, versions
celia.py         the infiltration column that every peer can run: setup and published check values
cases/           one file a case
baselines/       the same problem in plain JAX and plain PyTorch, for comparison
"""
