"""Parses IP addresses strictly, and maps each to the network that counts as one client. Pure."""

import ipaddress


def parse_address(text: str) -> str | None:
    """The IP address in `text`, which may have a port (`192.0.2.1:443`, `[2001:db8::1]:443`), brackets, quotes or an
    IPv6 zone. IPv4-mapped IPv6, as of a dual-stack socket, becomes IPv4. None if there is no address."""
    text = text.strip().strip('"')
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not _is_port(port)):
            return None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not _is_port(f":{port}"):
            return None
    else:
        host = text
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def network_of(address: str) -> str:
    """The network that counts as one client: an IPv4 address, or an IPv6 /64, which providers assign to a customer."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if (mapped := parsed.ipv4_mapped) is not None:
            return str(mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


def _is_port(text: str) -> bool:
    number = text.removeprefix(":")
    return text.startswith(":") and number.isascii() and number.isdigit() and len(number) <= 5
