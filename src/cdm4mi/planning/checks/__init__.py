"""One file a kind of mistake that training data can have; ``run`` looks for all of them."""
