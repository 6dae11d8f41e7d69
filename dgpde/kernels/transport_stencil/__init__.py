"""One implicit step of advection and dispersion on a 7-point stencil; see README.md."""
