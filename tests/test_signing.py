"""Signatures: what is signed verifies, here and in model-signing itself, and nothing else does."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_signing
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

import onnxcompress
from onnxcompress.errors import CompressError, ModelError, SignatureError
from onnxcompress.model_io import save_model
from onnxcompress.signing import Signer, Trust, check_signature, sign, sign_model
from onnxcompress.signing.bundle import BUNDLE_LIMIT
from onnxcompress.signing.framework import ROOT, Hashing, manifest_of
from tests.keys import Pair, certificate, pair
from tests.models import small_cnn
from tests.zoo import ZooModel


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(tmp_path_factory.mktemp("keys"), "key")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(tmp_path_factory.mktemp("keys"), "other")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """In one file."""
    path = tmp_path / "one" / "model.onnx"
    path.parent.mkdir()
    save_model(small_cnn(), path, external_data=False)
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """With external data, and a file beside it that is no part of it."""
    path = tmp_path / "two" / "model.onnx"
    path.parent.mkdir()
    onnx.save(ir.to_proto(small_cnn()), path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    (path.parent / "notes.txt").write_text("nothing to do with it")
    return path


def signing() -> Any:
    """model-signing's own."""
    return model_signing.signing.Config()  # type: ignore[no-untyped-call]


def verifying() -> Any:
    """model-signing's own."""
    return model_signing.verifying.Config()  # type: ignore[no-untyped-call]


def flip(path: Path, position: float = 0.5) -> None:
    """Change one bit."""
    with open(path, "rb+") as stream:
        stream.seek(int(path.stat().st_size * position))
        byte = stream.read(1)
        stream.seek(-1, 1)
        stream.write(bytes([byte[0] ^ 1]))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sign_names(model: Path, digests: dict[str, str], key: Pair) -> Path:
    """A signature that is valid, by the right key, over whatever names."""
    target = Path(f"{model}.sig")
    config = signing().use_elliptic_key_signer(private_key=key.private)
    config.set_hashing_config(Hashing(lambda _: manifest_of("model.onnx", digests)))
    config.sign(ROOT, target)
    return target


def assert_refused(model: Path, key: Pair, *words: str, error: type[CompressError] = SignatureError) -> None:
    with pytest.raises(error) as caught:
        check_signature(model, public_key=key.public)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_what_is_signed_verifies(model: Path, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    keys = pair(tmp_path, "key", ec.generate_private_key(curve))
    assert sign(model, private_key=keys.private) == Path(f"{model}.sig")
    signed = check_signature(model, public_key=keys.public)
    assert signed.files == {"model.onnx": sha256(model)}
    flip(model)
    assert_refused(model, keys, "not what was signed: model.onnx differs")


def test_external_data_is_signed_with_the_model_and_nothing_else(large: Path, keys: Pair) -> None:
    signature = large.parent / "elsewhere.sig"
    signed = sign_model(large, signature, Signer(keys.private))
    data = Path(f"{large}.data")
    assert signed.files == {"model.onnx": sha256(large), "model.onnx.data": sha256(data)}
    assert check_signature(large, signature, public_key=keys.public) == signed
    (large.parent / "notes.txt").write_text("changed")
    (large.parent / "more.txt").write_text("new")
    check_signature(large, signature, public_key=keys.public)
    signature.rename(f"{large}.sig")
    before = data.read_bytes()
    flip(data, 0.9)
    assert_refused(large, keys, "model.onnx.data differs")
    data.write_bytes(before)
    check_signature(large, public_key=keys.public)
    flip(large, 0.1)
    assert_refused(large, keys, "model.onnx differs")
    flip(large, 0.1)
    data.unlink()
    assert_refused(large, keys, "model.onnx.data is missing", error=ModelError)


def test_external_data_behind_a_symbolic_link_is_refused(large: Path, keys: Pair, tmp_path: Path) -> None:
    sign(large, private_key=keys.private)
    Path(f"{large}.data").rename(tmp_path / "data")
    Path(f"{large}.data").symlink_to(tmp_path / "data")
    assert_refused(large, keys, "symbolic link", error=ModelError)
    with pytest.raises(ModelError, match="symbolic link"):
        sign(large, private_key=keys.private)


def test_external_data_of_any_tensor_counts(tmp_path: Path, keys: Pair) -> None:
    """Also that of a constant within a branch, and in a folder of its own."""
    constant = onnx.numpy_helper.from_array(np.ones(4, np.float32), "c")
    constant.ClearField("raw_data")
    constant.data_location = onnx.TensorProto.EXTERNAL
    constant.external_data.add(key="location", value="./weights//c.bin")
    value = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4])
    branch = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["y"], value=constant)], "b", [], [value])
    node = onnx.helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch)
    given = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.BOOL, [])
    result = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [4])
    path, data = tmp_path / "m.onnx", tmp_path / "weights" / "c.bin"
    path.write_bytes(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [given], [result])).SerializeToString())
    data.parent.mkdir()
    data.write_bytes(bytes(16))
    assert set(sign_model(path, None, Signer(keys.private)).files) == {"m.onnx", "weights/c.bin"}
    flip(data)
    assert_refused(path, keys, "weights/c.bin differs")


def test_another_key_is_refused(model: Path, keys: Pair, others: Pair) -> None:
    sign(model, private_key=others.private)
    assert_refused(model, keys, "not a valid signature", "does not match the provided public key")
    # Nor when it claims to be of the right key: the hint in it is not signed.
    path = Path(f"{model}.sig")
    document = json.loads(path.read_text())
    hint = hashlib.sha256(keys.public.read_bytes()).hexdigest()
    document["verificationMaterial"]["publicKey"]["hint"] = hint
    path.write_text(json.dumps(document))
    assert_refused(model, keys, "not a valid signature", "InvalidSignature")


def test_digests_cannot_be_forged(model: Path, keys: Pair) -> None:
    """A signature whose digests were brought in line with an altered model is not valid any more."""
    path = sign(model, private_key=keys.private)
    before = sha256(model)
    flip(model)
    document = json.loads(path.read_text())
    payload = base64.b64decode(document["dsseEnvelope"]["payload"]).decode()
    root = hashlib.sha256(bytes.fromhex(before)).hexdigest()
    payload = payload.replace(before, sha256(model))
    payload = payload.replace(root, hashlib.sha256(bytes.fromhex(sha256(model))).hexdigest())
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload.encode()).decode()
    path.write_text(json.dumps(document))
    assert_refused(model, keys, "not a valid signature", "InvalidSignature")


def test_the_signature_of_another_model_is_refused(model: Path, large: Path, keys: Pair, tmp_path: Path) -> None:
    third = tmp_path / "model.onnx"
    save_model(small_cnn(classes=7), third)
    for path in (model, large, third):
        sign(path, private_key=keys.private)
    shutil.copy(f"{third}.sig", f"{model}.sig")
    assert_refused(model, keys, "model.onnx differs")
    shutil.copy(f"{large}.sig", f"{model}.sig")
    assert_refused(model, keys, "model.onnx.data is missing", error=ModelError)
    shutil.copy(f"{third}.sig", f"{large}.sig")
    assert_refused(large, keys, "model.onnx differs")


DEEP = "[" * 200_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a signature"),
        (b"\xff\xfe\x00garbage", "not a text in UTF-8"),
        (b"Some text.", "not a signature"),
        (b"[]", "not a signature"),
        (b"{}", "not a signature"),
        (b"null", "not a signature"),
        (DEEP.encode(), "not a signature"),
        (b'{"verificationMaterial": {"publicKey": {}}, "dsseEnvelope": {"payload": ""}}', "not a signature"),
        (b'{"verificationMaterial": {"certificate": {}}, "dsseEnvelope": {"payload": "e30="}}', "not a signature"),
        (b'{"verificationMaterial": {"publicKey": {"hint": 1' + b"0" * 10_000 + b"}}}", "not a signature"),
    ],
    ids=["empty", "bytes", "text", "list", "object", "null", "deep", "no hint", "no payload", "large number"],
)  # fmt: skip
def test_what_is_no_signature_is_refused(model: Path, keys: Pair, content: bytes, words: str) -> None:
    Path(f"{model}.sig").write_bytes(content)
    assert_refused(model, keys, words, f"{model}.sig")


def test_every_truncation_of_a_signature_is_refused(model: Path, keys: Pair) -> None:
    path = sign(model, private_key=keys.private)
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 61):
        path.write_bytes(content[:length])
        assert_refused(model, keys, str(path))


def test_a_signature_without_its_parts_is_refused(model: Path, keys: Pair) -> None:
    """Each field taken away, and each emptied: one line of ours, whatever model-signing says."""
    path = sign(model, private_key=keys.private)
    whole = path.read_text()
    for trail in [
        ("mediaType",), ("dsseEnvelope", "signatures"), ("dsseEnvelope", "payloadType"),
        ("dsseEnvelope", "payload"), ("verificationMaterial",), ("dsseEnvelope",),
    ]:  # fmt: skip
        values: tuple[Any, ...] = (None, "", [], {})
        for value in values:
            document = json.loads(whole)
            parent = document
            for name in trail[:-1]:
                parent = parent[name]
            if value is None:
                del parent[trail[-1]]
            else:
                parent[trail[-1]] = value
            path.write_text(json.dumps(document))
            assert_refused(model, keys, str(path))


def test_a_huge_signature_is_not_read(model: Path, keys: Pair) -> None:
    with open(f"{model}.sig", "wb") as stream:
        stream.truncate(BUNDLE_LIMIT + 1)
    assert_refused(model, keys, "larger than 16 MiB")


def test_a_missing_signature_says_how_to_make_one(model: Path, keys: Pair) -> None:
    assert_refused(model, keys, "no such signature", "onnxcompress sign")
    Path(f"{model}.sig").mkdir()
    assert_refused(model, keys, "not a plain file")


@pytest.mark.parametrize("name", ["/etc/hostname", "../secret", "sub/../../secret", "//x/y"])
def test_names_outside_the_folder_are_refused(model: Path, keys: Pair, name: str, tmp_path: Path) -> None:
    """Even where the digests hold."""
    (tmp_path / "secret").write_text("secret")
    digest = sha256(tmp_path / "secret")
    sign_names(model, {"model.onnx": sha256(model), name: digest}, keys)
    assert_refused(model, keys, "outside the model's folder")


def test_names_of_other_files_are_refused(model: Path, large: Path, keys: Pair) -> None:
    (model.parent / "config.json").write_text("{}")
    digests = {"model.onnx": sha256(model), "config.json": sha256(model.parent / "config.json")}
    sign_names(model, digests, keys)
    assert_refused(model, keys, "covers config.json, which is no part of")
    sign_names(model, {"config.json": digests["config.json"]}, keys)
    assert_refused(model, keys, "signs config.json, not model.onnx")
    sign_names(model, {}, keys)
    assert_refused(model, keys, "signs nothing, not model.onnx")
    sign_names(large, {"model.onnx": sha256(large)}, keys)
    assert_refused(large, keys, "external data model.onnx.data is not covered")
    sign_names(large, {".": sha256(large)}, keys)
    assert_refused(large, keys, "external data model.onnx.data is not covered")


def test_a_folder_can_be_moved_and_a_single_file_renamed(model: Path, large: Path, keys: Pair, tmp_path: Path) -> None:
    for path in (model, large):
        sign(path, private_key=keys.private)
    model.rename(tmp_path / "renamed.onnx")
    check_signature(tmp_path / "renamed.onnx", f"{model}.sig", public_key=keys.public)
    large.parent.rename(tmp_path / "moved")
    moved = tmp_path / "moved" / "model.onnx"
    check_signature(moved, public_key=keys.public)
    moved.rename(tmp_path / "moved" / "renamed.onnx")
    with pytest.raises(SignatureError, match=r"not renamed\.onnx: give the model that name again, or sign it anew"):
        check_signature(tmp_path / "moved" / "renamed.onnx", f"{moved}.sig", public_key=keys.public)


def test_model_signing_verifies_ours(model: Path, large: Path, keys: Pair) -> None:
    sign(model, private_key=keys.private)
    sign(large, private_key=keys.private)
    config = verifying().use_elliptic_key_verifier(public_key=keys.public)
    config.verify(model, f"{model}.sig")
    config = verifying().use_elliptic_key_verifier(public_key=keys.public)
    config.set_ignore_unsigned_files(True).verify(large.parent, f"{large}.sig")
    flip(Path(f"{large}.data"))
    with pytest.raises(ValueError, match=r"Hash mismatch for 'model\.onnx\.data'"):
        config.verify(large.parent, f"{large}.sig")


def test_ours_verifies_model_signings(model: Path, large: Path, keys: Pair) -> None:
    config = signing().use_elliptic_key_signer(private_key=keys.private)
    config.sign(model, f"{model}.sig")
    check_signature(model, public_key=keys.public)
    (large.parent / "notes.txt").unlink()
    config.sign(large.parent, f"{large}.sig")
    assert set(check_signature(large, public_key=keys.public).files) == {"model.onnx", "model.onnx.data"}
    flip(Path(f"{large}.data"))
    assert_refused(large, keys, "model.onnx.data differs")


def test_encrypted_keys(model: Path, tmp_path: Path) -> None:
    keys = pair(tmp_path, "encrypted", password="open sesame")
    sign(model, private_key=keys.private, password="open sesame")
    check_signature(model, public_key=keys.public)
    sign(model, private_key=keys.private, password=lambda: "open sesame")
    check_signature(model, public_key=keys.public)
    with pytest.raises(SignatureError, match="is encrypted; give its password"):
        sign(model, private_key=keys.private)
    with pytest.raises(SignatureError, match="password does not open the key"):
        sign(model, private_key=keys.private, password="wrong")


def test_a_password_is_not_asked_for_without_need(model: Path, keys: Pair) -> None:
    def fail() -> str:
        raise AssertionError("asked")

    sign(model, private_key=keys.private, password=fail)


def test_certificates(model: Path, tmp_path: Path, keys: Pair) -> None:
    names = ("root", "middle", "leaf", "impostor")
    root, middle, leaf, impostor = (pair(tmp_path, name, password="word" if name == "leaf" else None) for name in names)
    top = certificate(tmp_path, "root", root, root, "root", usage="ca")
    chain = certificate(tmp_path, "middle", middle, root, "root", usage="ca")
    end = certificate(tmp_path, "leaf", leaf, middle, "middle", usage="signing")
    wrong = certificate(tmp_path, "none", leaf, middle, "middle", usage="none")
    other = certificate(tmp_path, "impostor", impostor, impostor, "root", usage="ca")
    sign(model, private_key=leaf.private, password="word", certificate=end, chain=[chain])
    check_signature(model, certificates=[top])
    with pytest.raises(SignatureError, match="not a valid signature"):
        check_signature(model, certificates=[other])
    assert_refused(model, keys, "signed with certificate, not with key")
    flip(model)
    with pytest.raises(SignatureError, match=r"model\.onnx differs"):
        check_signature(model, certificates=[top])
    sign(model, private_key=leaf.private, password="word", certificate=wrong, chain=[chain])
    with pytest.raises(SignatureError, match="cannot be used for signing"):
        check_signature(model, certificates=[top])
    sign(model, private_key=leaf.private, password="word", certificate=end)
    with pytest.raises(SignatureError, match="not a valid signature"):
        check_signature(model, certificates=[top])  # the middle is missing
    check_signature(model, certificates=[top, chain])
    with pytest.raises(SignatureError, match="does not match"):
        sign(model, private_key=keys.private, certificate=end, chain=[chain])
    with pytest.raises(SignatureError, match="certificates cannot be read"):
        check_signature(model, certificates=[model])
    sign(model, private_key=keys.private)
    with pytest.raises(SignatureError, match="signed with key, not with certificate"):
        check_signature(model, certificates=[top])


def test_keys_of_other_kinds(model: Path, keys: Pair, tmp_path: Path) -> None:
    for name, key in (
        ("rsa", rsa.generate_private_key(65537, 2048)),
        ("ed25519", ed25519.Ed25519PrivateKey.generate()),
        ("k1", ec.generate_private_key(ec.SECP256K1())),
    ):
        wrong = pair(tmp_path, name, key)
        with pytest.raises(SignatureError, match="not an elliptic-curve key of P-256, P-384 or P-521"):
            sign(model, private_key=wrong.private)
    sign(model, private_key=keys.private)
    assert_refused(model, dataclasses.replace(keys, public=wrong.public), "not an elliptic-curve key")
    assert_refused(model, dataclasses.replace(keys, public=keys.private), "not a public key in PEM")
    assert_refused(model, dataclasses.replace(keys, public=tmp_path / "absent"), "no such file")
    with pytest.raises(SignatureError, match="not a private key in PEM"):
        sign(model, private_key=keys.public)
    with pytest.raises(SignatureError, match="no such file"):
        sign(model, private_key=tmp_path / "absent")


@pytest.mark.parametrize(
    "options",
    [
        {}, {"private_key": "k", "sigstore": True}, {"certificate": "c", "sigstore": True},
        {"private_key": "k", "chain": ("c",)}, {"private_key": "k", "staging": True},
    ],
)  # fmt: skip
def test_one_way_to_sign(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Signer(**options)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"public_key": "k", "certificates": ("c",)}, {"public_key": "k", "issuer": "i"},
        {"identity": "me"}, {"public_key": "k", "identity": "me", "issuer": "i"},
        {"public_key": "k", "staging": True},
    ],
)  # fmt: skip
def test_one_way_to_trust(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Trust(**options)


def test_sigstore_is_asked_as_told_and_told_of_when_away(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def away(self: object, **options: Any) -> None:
        asked.append(options)
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(model_signing.signing.Config, "use_sigstore_signer", away)
    monkeypatch.setattr(model_signing.verifying.Config, "use_sigstore_verifier", away)
    with pytest.raises(SignatureError, match=r"Sigstore cannot be used .*: no network$"):
        sign_model(model, None, Signer(sigstore=True, staging=True))
    assert not Path(f"{model}.sig").exists()
    bundle: dict[str, Any] = {"predicate": {"resources": []}}
    payload = base64.b64encode(json.dumps(bundle).encode()).decode()
    document = {"verificationMaterial": {"certificate": {}}, "dsseEnvelope": {"payload": payload}}
    Path(f"{model}.sig").write_text(json.dumps(document))
    with pytest.raises(SignatureError, match=r"Sigstore's keys cannot be had .*: no network$"):
        check_signature(model, identity="me@example.com", issuer="https://example.com")
    assert asked == [
        {"use_ambient_credentials": True, "use_staging": True},
        {"identity": "me@example.com", "oidc_issuer": "https://example.com", "use_staging": False},
    ]


def test_without_model_signing_the_extra_is_named(model: Path, keys: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    sign(model, private_key=keys.private)
    monkeypatch.setitem(sys.modules, "model_signing", None)
    calls: list[Callable[[], object]] = [
        lambda: sign(model, private_key=keys.private),
        lambda: check_signature(model, public_key=keys.public),
        lambda: onnxcompress.load(model, public_key=keys.public),
    ]
    for call in calls:
        with pytest.raises(SignatureError, match=r"pip install 'onnxcompress\[sign\]'"):
            call()
    onnxcompress.load(model)


def test_a_failure_leaves_the_old_signature(model: Path, keys: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sign(model, private_key=keys.private)
    before = path.read_bytes()
    monkeypatch.setattr(model_signing.signing.Config, "sign", lambda *_: 1 / 0)
    with pytest.raises(SignatureError, match="not signed: division by zero"):
        sign(model, private_key=keys.private)
    assert path.read_bytes() == before
    assert {file.name for file in model.parent.iterdir()} == {"model.onnx", "model.onnx.sig"}


def test_a_signature_does_not_take_the_place_of_the_model(large: Path, keys: Pair) -> None:
    for target in (large, Path(f"{large}.data")):
        with pytest.raises(SignatureError, match="part of the model"):
            sign(large, target, private_key=keys.private)
    with pytest.raises(ModelError, match="no such folder"):
        sign(large, large.parent / "absent" / "x.sig", private_key=keys.private)


def test_what_is_no_model_is_not_signed(tmp_path: Path, keys: Pair) -> None:
    path = tmp_path / "text.onnx"
    for content in (b"", b"this is text"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"not .*ONNX model"):
            sign(path, private_key=keys.private)
    with pytest.raises(ModelError, match="no such file"):
        sign(tmp_path / "absent.onnx", private_key=keys.private)
    assert [file.name for file in tmp_path.iterdir()] == ["text.onnx"]


def test_a_compressed_model_leads_to_its_original(tmp_path: Path, keys: Pair) -> None:
    path = tmp_path / "m.onnx"
    model = small_cnn()
    model.metadata_props.update({"onnxcompress.source": "12ab", "onnxcompress.recipe": "34cd"})
    save_model(model, path)
    sign(path, private_key=keys.private)
    signed = check_signature(path, public_key=keys.public)
    assert (signed.source, signed.has_recipe) == ("12ab", True)


def _altered(model: Path, keys: Pair) -> None:
    """A bit changed anywhere is noticed: at the start, within, and at the end."""
    for position in (0.0, 0.37, 0.999999):
        flip(model, position)
        assert_refused(model, keys, f"{model.name} differs")
        flip(model, position)
    check_signature(model, public_key=keys.public)


@pytest.mark.parametrize("name", ["ppocr-cls", "silero-16k"])
def test_real_models(name: str, zoo: Callable[[str], ZooModel], keys: Pair, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.onnx"
    shutil.copy(zoo(name).path(), path)
    sign(path, private_key=keys.private)
    _altered(path, keys)


@pytest.mark.slow
def test_every_real_model(zoo_model: ZooModel, keys: Pair, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    shutil.copy(zoo_model.path(), path)
    sign(path, private_key=keys.private)
    check_signature(path, public_key=keys.public)
    _altered(path, keys)
    onnxcompress.load(path, public_key=keys.public)


@pytest.mark.slow
def test_a_real_model_with_external_data(zoo: Callable[[str], ZooModel], keys: Pair, tmp_path: Path) -> None:
    path, data = tmp_path / "model.onnx", tmp_path / "weights"
    onnx.save(onnx.load(zoo("minilm").path()), path, save_as_external_data=True, location="weights")
    assert data.stat().st_size > 80e6
    sign(path, private_key=keys.private)
    check_signature(path, public_key=keys.public)
    onnxcompress.load(path, public_key=keys.public)
    for position in (0.0, 0.5, 0.999999):
        flip(data, position)
        assert_refused(path, keys, "weights differs")
        flip(data, position)
    check_signature(path, public_key=keys.public)
