"""Make the certificates of ``imgkit/testing/certificates``: run ``python -m tests.make_certificates``.

The kit checks them in, so authors of backends need no ``cryptography``. They protect nothing: anyone
can read their keys. They end in 2125.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import imgkit.testing

FOLDER = Path(str(imgkit.testing.__file__)).with_name("certificates")
BEGIN, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2125, 1, 1, tzinfo=UTC)
HOSTS: dict[str, list[x509.GeneralName]] = {
    "localhost": [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ],
    "elsewhere": [x509.DNSName("elsewhere.invalid")],
}
"""The names in the certificate of each server."""

OTHER_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "encipher_only",
    "decipher_only",
)
"""The uses of a key that the authority does without: it signs certificates only."""

Key = ec.EllipticCurvePrivateKey


def build_certificate(
    name: str, key: Key, issuer: x509.Certificate | None, issuer_key: Key
) -> x509.CertificateBuilder:
    """Return a certificate with the extensions that OpenSSL requires in its strict mode."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"imgkit test {name}")])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGIN)
        .not_valid_after(END)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority, critical=False)
    )


def encode_key(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def encode_certificate(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def main() -> None:
    """Write the certificate of the authority, and key and certificate of each server."""
    FOLDER.mkdir(exist_ok=True)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    usage = dict.fromkeys(OTHER_USES, False)
    ca = (
        build_certificate("authority", ca_key, None, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    (FOLDER / "ca.pem").write_bytes(encode_certificate(ca))
    for name, hosts in HOSTS.items():
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            build_certificate(name, key, ca, ca_key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        (FOLDER / f"{name}.pem").write_bytes(encode_key(key) + encode_certificate(certificate))


if __name__ == "__main__":
    main()
