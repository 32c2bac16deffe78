"""Nodes that average the channels of a quantized image; the bodies of several operators begin with them."""

from __future__ import annotations


def channel_means(image: str) -> list[str]:
    """Lines of a function body: mean, float [N, 1, C], of `image`, uint8 [N, H, W, C], in real units.

    x_scale and x_zero_point are the image's. The sums are exact and come from an integer product by ones, which takes
    ONNX Runtime a tenth of the time of DequantizeLinear and ReduceMean.
    """
    return [
        f"batch = Shape <start = 0, end = 1> ({image})",
        f"sides = Shape <start = 1, end = 3> ({image})",
        f"channels = Shape <start = 3> ({image})",
        "pixels = ReduceProd <keepdims = 1> (sides)",
        "matrix_shape = Concat <axis = 0> (batch, pixels, channels)",
        f"matrix = Reshape <allowzero = 1> ({image}, matrix_shape)",
        "single = Constant <value_ints = [1]> ()",
        "ones_shape = Concat <axis = 0> (batch, single, pixels)",
        "ones = ConstantOfShape <value = uint8[1] {1}> (ones_shape)",
        "sums = MatMulInteger (ones, matrix)",
        "sums_float = Cast <to = 1> (sums)",
        "count = Cast <to = 1> (pixels)",
        "mean_steps = Div (sums_float, count)",
        "zero_float = Cast <to = 1> (x_zero_point)",
        "mean_shifted = Sub (mean_steps, zero_float)",
        "mean = Mul (mean_shifted, x_scale)",
    ]
