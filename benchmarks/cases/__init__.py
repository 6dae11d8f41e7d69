"""One file a case: `measure(size, device, repeats)` checks the answers, then times dgpde."""
