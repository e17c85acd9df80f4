"""The plan of a training, from data and machine, and checks of training data."""
