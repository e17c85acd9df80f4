"""What to train on this machine with these data, and whether the data are what they should be."""
