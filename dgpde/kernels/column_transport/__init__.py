"""Advection, dispersion, sorption and reactions of solutes in columns; see README.md."""
