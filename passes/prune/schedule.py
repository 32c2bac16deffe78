"""Gradual pruning: how sparse a model is at each step of its tuning."""

from __future__ import annotations


def sparsity_at(step: int, steps: int, final: float, initial: float = 0.0) -> float:
    """The sparsity after `step` of `steps`: fast at first, slow where every weight counts.

    s_f + (s_i - s_f) (1 - t)^3 with t = step / steps (Zhu & Gupta, To prune, or not to prune, 2017, equation 1).

    Args:
        step: 0 gives `initial`; `steps` and beyond give `final`.
        steps: at least 1.

    Raises:
        ValueError: a sparsity outside of 0 to 1, a negative step, no steps.
    """
    if not (0 <= initial <= 1 and 0 <= final <= 1):
        raise ValueError(f"sparsities must lie between 0 and 1, not {initial} and {final}")
    if step < 0 or steps < 1:
        raise ValueError(f"step {step} of {steps}: there is no such step")
    left = 1 - min(step, steps) / steps
    return final + (initial - final) * left**3
