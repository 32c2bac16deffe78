"""Whether a compressed model is a sound stand-in for its original: structure, agreement, robustness, signature."""

from onnxcompress.verification.results import Check, Verification
from onnxcompress.verification.verifier import verify

__all__ = ["Check", "Verification", "verify"]
