"""Solvers: from x_t and x0_hat at one time to x at the next. A family a file; ``choices.SOLVERS`` is the table."""
