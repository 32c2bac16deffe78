"""Resize and its kin."""

from __future__ import annotations

import itertools

import numpy as np

from tests.torch.cases.case import Array, Case, ints, real

X = {"x": real(1, 2, 5, 6)}


def scales(*values: float) -> dict[str, Array]:
    return {"s": np.array(values, np.float32)}


def resize(attributes: str, constants: dict[str, Array], opset: int = 21, tolerance: float = 1e-5) -> Case:
    inputs = "x, , s" if "s" in constants else "x, , , n"
    inputs = inputs.replace("x, ,", "x, r,", 1) if "r" in constants else inputs
    return Case(f"y = Resize <{attributes}> ({inputs})", X, constants, opset, tolerance)


UP, DOWN, TWICE = scales(1, 1, 2, 2.5), scales(1, 1, 0.6, 0.5), scales(1, 1, 2, 3)
COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")

RESIZING = [
    *(
        resize(f'mode = "{mode}", coordinate_transformation_mode = "{where}"', factors)
        for mode, where, factors in itertools.product(("nearest", "linear", "cubic"), COORDINATES, (UP, DOWN))
    ),
    *(
        resize(f'mode = "nearest", nearest_mode = "{how}"', factors)
        for how, factors in itertools.product(("round_prefer_ceil", "floor", "ceil"), (UP, DOWN))
    ),
    *(
        resize(f'mode = "{mode}", coordinate_transformation_mode = "{where}"', {"n": ints(1, 2, 8, 9)})
        for mode, where in itertools.product(("nearest", "linear", "cubic"), COORDINATES)
    ),
    resize('mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"', TWICE),
    resize('mode = "linear"', {"n": ints(1, 2, 1, 1)}),
    resize('mode = "linear", coordinate_transformation_mode = "pytorch_half_pixel"', {"n": ints(1, 2, 1, 4)}),
    resize('mode = "linear", axes = [2, 3]', {"n": ints(10, 4)}),
    resize('mode = "linear", axes = [3, 2], keep_aspect_ratio_policy = "not_larger"', {"n": ints(12, 7)}),
    resize('mode = "linear", axes = [3, 2], keep_aspect_ratio_policy = "not_smaller"', {"n": ints(12, 7)}),
    resize('mode = "cubic", exclude_outside = 1, cubic_coeff_a = -0.5', UP),
    resize('mode = "linear", antialias = 1', DOWN),
    resize('mode = "cubic", antialias = 1', DOWN),
    resize('mode = "linear", antialias = 1, exclude_outside = 1', DOWN),
    resize(
        'mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize", extrapolation_value = 3.0',
        {"n": ints(1, 2, 4, 4), "r": np.array([0, 0, 0.2, -0.3, 1, 1, 0.9, 0.8], np.float32)},
    ),
    Case('y = Resize <mode = "nearest"> (x, s)', X, UP, 10),
    Case('y = Resize <mode = "linear"> (x, s)', X, UP, 10, tolerance=1e-5),
    Case('y = Resize <mode = "linear"> (x, , s)', {"x": real(1, 2, 3, 4, 5)}, scales(1, 1, 2, 2, 2), tolerance=1e-5),
    Case('y = Upsample <mode = "nearest", scales = [1.0, 1.0, 2.0, 3.0]> (x)', X, opset=7),
    Case('y = Upsample <mode = "linear"> (x, s)', X, UP, 9, tolerance=1e-5),
    *(
        Case(
            f'y = GridSample <mode = "{mode}", padding_mode = "{padding}", align_corners = {corners}> (x, g)',
            {**X, "g": real(1, 4, 4, 2, low=-1.2, high=1.2)}, tolerance=1e-5, smooth=mode == "linear",
        )
        for mode, padding, corners in (
            ("linear", "zeros", 0), ("linear", "border", 1), ("cubic", "reflection", 0), ("nearest", "zeros", 1),
        )
    ),
]  # fmt: skip
