# SPDX-License-Identifier: Apache-2.0
# Vectors by an implementation of COSE that is not ours, pycose 1.1.0:
#
#   python3 -m venv /tmp/cose && /tmp/cose/bin/pip install pycose==1.1.0 cbor2==5.6.5
#   /tmp/cose/bin/python cose.py make DIR         writes NAME.cose and NAME.key (public key, base64 of its DER)
#   /tmp/cose/bin/python cose.py verify KEY FILE  ends with 0 if FILE verifies under KEY (base64 of a DER public key), and prints its payload
#
# The keys are thrown away.
import base64
import datetime
import pathlib
import sys

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pycose.algorithms import EdDSA, Es256, Es384, Ps256
from pycose.headers import Algorithm, ContentType
from pycose.keys import EC2Key, OKPKey, RSAKey
from pycose.keys.curves import P256, P384, Ed25519
from pycose.messages import Sign1Message

CONTENT = "application/vnd.portcullis.fragment+json"
DIGEST = "sha256:" + "ab" * 32
DOCUMENT = (
    '{"containers":{"app":{"image":{"also":[],"digest":"%s","name":"registry.example.org/shop/app@%s"}}},'
    '"feed":"shop/app","svn":3,"version":1}' % (DIGEST, DIGEST)
).encode()


def number(n, size):
    return n.to_bytes(size, "big")


def cose_key(key):
    """The COSE key of a key of cryptography, private or public."""
    public = key.public_key() if hasattr(key, "public_key") else key
    if isinstance(public, ed25519.Ed25519PublicKey):
        raw = serialization.Encoding.Raw
        x = public.public_bytes(raw, serialization.PublicFormat.Raw)
        d = b"" if public is key else key.private_bytes(raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
        return EdDSA, OKPKey(crv=Ed25519, x=x, d=d)
    if isinstance(public, rsa.RSAPublicKey):
        n = public.public_numbers()
        parts = {"n": number(n.n, 384), "e": number(n.e, 3)}
        if public is not key:
            p = key.private_numbers()
            parts |= {name: number(v, 384) for name, v in {"d": p.d, "p": p.p, "q": p.q, "dp": p.dmp1, "dq": p.dmq1, "qinv": p.iqmp}.items()}
        return Ps256, RSAKey(**parts)
    size = public.curve.key_size // 8
    n = public.public_numbers()
    d = b"" if public is key else number(key.private_numbers().private_value, size)
    curve, alg = {32: (P256, Es256), 48: (P384, Es384)}[size]
    return alg, EC2Key(crv=curve, x=number(n.x, size), y=number(n.y, size), d=d)


def spki(key):
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def certificate(subject, key, issuer, by, ca):
    when = datetime.datetime(2020, 1, 1)
    name = lambda cn: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, cn)])
    b = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(key.public_key())
    b = b.serial_number(7).not_valid_before(when).not_valid_after(when + datetime.timedelta(days=1))
    b = b.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    return b.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def write(directory, name, key, headers=None, anchor=None):
    alg, ck = cose_key(key)
    m = Sign1Message(phdr={Algorithm: alg, ContentType: CONTENT, **(headers or {})}, payload=DOCUMENT)
    m.key = ck
    (directory / (name + ".cose")).write_bytes(m.encode())
    (directory / (name + ".key")).write_text(anchor or base64.b64encode(spki(key)).decode())


def make(directory):
    from pycose.headers import X5chain

    directory.mkdir(parents=True, exist_ok=True)
    write(directory, "es256", ec.generate_private_key(ec.SECP256R1()))
    write(directory, "es384", ec.generate_private_key(ec.SECP384R1()))
    write(directory, "eddsa", ed25519.Ed25519PrivateKey.generate())
    write(directory, "ps256", rsa.generate_private_key(65537, 3072))
    root, leaf = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256R1())
    top = certificate("Example Root", root, "Example Root", root, True)
    low = certificate("Example Release", leaf, "Example Root", root, False)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(top)
    write(directory, "x5chain", leaf, {X5chain: [low, top]}, "sha256:" + digest.finalize().hex())


def verify(key, file):
    public = serialization.load_der_public_key(base64.b64decode(key))
    m = Sign1Message.decode(file.read_bytes())
    alg, m.key = cose_key(public)
    if m.phdr[Algorithm] is not alg or not m.verify_signature():
        sys.exit("it does not verify")
    assert cbor2.loads(file.read_bytes()).tag == 18
    sys.stdout.buffer.write(m.payload)


if sys.argv[1] == "make":
    make(pathlib.Path(sys.argv[2]))
else:
    verify(sys.argv[2], pathlib.Path(sys.argv[3]))
