"""The certificate of the gateway: the site's own, or one that vouches for itself."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from airgap import fsio, limits
from airgap.errors import HostError, UsageError
from airgap.host import launch
from airgap.host.asked import Said
from airgap.host.paths import HostPaths

# Runs code by some Python, with text on its stdin.
RunPython = Callable[[str, str], Said]
# Run by the gateway's own interpreter, which has `cryptography`; the key never touches argv.
_SELF_SIGNED = """
import datetime, ipaddress, json, sys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization as s
from cryptography.hazmat.primitives.asymmetric import ec
names = json.loads(sys.stdin.read())
key = ec.generate_private_key(ec.SECP256R1())
who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0][:64])])
now = datetime.datetime.now(datetime.timezone.utc)
alternative = [x509.DNSName(n) for n in names] + [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
cert = (
    x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key())
    .serial_number(x509.random_serial_number())
    .not_valid_before(now - datetime.timedelta(days=1))
    .not_valid_after(now + datetime.timedelta(days=730))
    .add_extension(x509.SubjectAlternativeName(alternative), False)
    .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    .sign(key, hashes.SHA256())
)
pem = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
print(json.dumps([cert.public_bytes(s.Encoding.PEM).decode(), pem.decode()]))
"""


def cert_path(paths: HostPaths) -> Path:
    """The certificate chain, PEM."""
    return paths.tls / "cert.pem"


def _key_path(paths: HostPaths) -> Path:
    return paths.tls / "key.pem"


def context(paths: HostPaths) -> ssl.SSLContext:
    """For the door to listen with. Raises HostError `gateway.certificate`."""
    return _load(cert_path(paths), _key_path(paths))


def _load(cert: Path, key: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    try:
        # An encrypted key would ask at a terminal that a daemon does not have.
        made.load_cert_chain(cert, key, password=b"")
    except (OSError, ValueError) as e:
        raise HostError(
            "gateway.certificate",
            "the gateway's certificate cannot be used",
            why=f"{cert} and {key}: {e}",
            do="give a certificate chain and its unencrypted key, both PEM: "
            "`airgap tls install CERT KEY`",
        ) from e
    return made


def install(paths: HostPaths, cert: Path, key: Path) -> str:
    """Use that certificate; returns its fingerprint. The caller holds the host's lock."""
    _load(cert, key)
    with fsio.disk_errors(f"reading {cert} and {key}"):
        chain, secret = cert.read_bytes(), key.read_bytes()
    _keep(paths, chain, secret)
    return fingerprint(paths)


def _keep(paths: HostPaths, chain: bytes, secret: bytes) -> None:
    """The key first: a certificate without its key would be an older pair half replaced."""
    fsio.make_dirs(paths.tls, 0o700)
    fsio.write(_key_path(paths), secret, 0o600)
    fsio.write(cert_path(paths), chain, 0o644)
    for path in (paths.tls, _key_path(paths), cert_path(paths)):
        launch.give_to_door(paths, path)


def ensure(paths: HostPaths, run: RunPython) -> bool:
    """Have a certificate: True when one that vouches for itself was made just now, by the Python
    of `run`, which has `cryptography`."""
    if cert_path(paths).exists() and _key_path(paths).exists():
        context(paths)
        return False
    names = list(dict.fromkeys([socket.gethostname() or "localhost", "localhost"]))
    done = run(_SELF_SIGNED, json.dumps(names))
    if done.code != 0:
        raise _not_made(done.err.strip()[-500:] or f"it ended with {done.code}")
    try:
        chain, secret = json.loads(done.out)
        _try(chain.encode(), secret.encode())
    except (ValueError, TypeError, AttributeError, RecursionError, HostError) as e:
        raise _not_made(f"what the gateway's Python made is no certificate: {e}"[:500]) from e
    _keep(paths, chain.encode(), secret.encode())
    return True


def _try(chain: bytes, secret: bytes) -> None:
    """Raise HostError unless they are a certificate and its key: what is kept is used for ever.
    In memory: no disk sees a key before it is kept."""
    with contextlib.ExitStack() as held:
        files = []
        for name, data in (("cert", chain), ("key", secret)):
            file = held.enter_context(os.fdopen(os.memfd_create(name), "wb"))
            file.write(data)
            file.flush()
            files.append(Path(f"/proc/self/fd/{file.fileno()}"))
        _load(*files)


def _not_made(why: str) -> HostError:
    return HostError(
        "gateway.certificate",
        "no certificate could be made for the gateway",
        why=why,
        do="give one: `airgap tls install CERT KEY`, then run the same command again",
    )


def fingerprint(paths: HostPaths) -> str:
    """SHA-256 of the first certificate, as browsers and `openssl x509 -fingerprint` show it."""
    try:
        with open(cert_path(paths), encoding="ascii") as f:
            pem = f.read(limits.MIB)
    except FileNotFoundError as e:
        raise UsageError(
            "gateway.no-certificate",
            "there is no certificate yet",
            why=f"{cert_path(paths)} does not exist",
            do="`airgap tls install CERT KEY`; without one, the first gateway makes its own",
        ) from e
    end = "-----END CERTIFICATE-----"
    first = pem[pem.index("-----BEGIN") : pem.index(end) + len(end)]
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()
