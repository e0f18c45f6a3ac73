"""Certificates for servers of our own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme

__all__ = ["Certificate"]


@dataclass(frozen=True)
class Certificate:
    """A server's, in files.

    Attributes:
        authority: the certificate that a client has to trust.
    """

    authority: str
    certificate: str
    key: str

    @classmethod
    def made_in(cls, folder: Path, *names: str) -> Certificate:
        """One for these names, by an authority of its own."""
        authority = trustme.CA()
        issued = authority.issue_cert(*names)
        authority.cert_pem.write_to_path(folder / "authority.pem")
        issued.private_key_pem.write_to_path(folder / "key.pem")
        for part in issued.cert_chain_pems:
            part.write_to_path(folder / "certificate.pem", append=True)
        return cls(*(str(folder / f"{name}.pem") for name in ("authority", "certificate", "key")))
