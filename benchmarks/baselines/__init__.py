"""What a user would write without dgpde; each prints one JSON object in the form of `measure.Measurement`."""
