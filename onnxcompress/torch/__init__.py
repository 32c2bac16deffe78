"""What needs torch: the operators as differentiable functions."""
