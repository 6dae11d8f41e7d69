"""One implicit step of variably saturated flow on a 7-point stencil: residual, Jacobian and their derivatives."""
