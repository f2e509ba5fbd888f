"""Which hosts are this machine: only to them may a connection go without TLS."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Say whether ``host`` is ``localhost`` or a loopback address (RFC 6890), so that nobody stands between."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
