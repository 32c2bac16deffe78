"""Signatures of models, through OpenSSF model-signing: who vouches for a model file and its external data.

A signature is a Sigstore bundle with a manifest: SHA-256 digests of the model file and of the external data files that
it names, and of nothing else. Paths in it are relative to the model's folder, so a folder may be moved. A model without
external data stands in it as ".", as model-signing itself signs a single file, and may be renamed too.
"""

from onnxcompress.signing.checking import check_signature, verified
from onnxcompress.signing.making import sign, sign_model
from onnxcompress.signing.measured import Measured, Signed
from onnxcompress.signing.signers import Signer
from onnxcompress.signing.trust import Trust

__all__ = ["Measured", "Signed", "Signer", "Trust", "check_signature", "sign", "sign_model", "verified"]
