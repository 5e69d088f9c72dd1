"""Ports of this machine, bound before anything else is started."""

import errno
import socket
from ipaddress import ip_address

from agepipe.core.errors import ServiceError


def bound(option: str, host: str, port: int) -> socket.socket:
    """A socket that listens on the port; clients that connect before it is served wait.

    Args:
        option: the option that sets the port, for the error.
        host: address or name of this machine.
        port: the port; 0 takes any free one.

    Raises:
        ServiceError: the port is in use or may not be used, or the host is not this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ServiceError(f"--host: {host!r} is not an address of this machine ({error.strerror}).") from error
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen()
    except OSError as error:
        found.close()
        raise _refused(option, host, port, error) from error
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on a host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refused(option: str, host: str, port: int, error: OSError) -> ServiceError:
    if error.errno == errno.EADDRINUSE:
        return ServiceError(f"{option}: port {port} is in use; give another, such as {port + 1}.")
    if error.errno == errno.EADDRNOTAVAIL:
        return ServiceError(f"--host: {host!r} is not an address of this machine; 127.0.0.1 is for this machine alone.")
    return ServiceError(f"{option}: port {port} cannot be used ({error.strerror}); give another, such as 8000.")
