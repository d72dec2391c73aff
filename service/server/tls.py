"""Check the files of a TLS certificate before anything is started."""

import ssl

from service.settings import SettingsError


def check_files(certfile: str | None, keyfile: str | None) -> None:
    """Check that both files are set, can be read and belong together; or that none is set.

    Raises:
        SettingsError: what is wrong, in one line.
    """
    if certfile is None and keyfile is None:
        return
    if certfile is None or keyfile is None:
        given, lacks = ("KEY", "CERT") if certfile is None else ("CERT", "KEY")
        raise SettingsError(
            f"SERVICE_{given}FILE needs SERVICE_{lacks}FILE: TLS has a certificate and its key"
        )
    for name, path in (("SERVICE_CERTFILE", certfile), ("SERVICE_KEYFILE", keyfile)):
        try:
            with open(path, "rb"):  # noqa: PTH123 - a str, as the servers take it
                pass
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise SettingsError(f"{name}={path!r}: {why}") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, _no_password)
    except _PasswordError:
        raise SettingsError(
            f"SERVICE_KEYFILE={keyfile!r}: the key has a password; give a file without one"
        ) from None
    except ssl.SSLError as error:
        raise SettingsError(
            f"SERVICE_CERTFILE={certfile!r}, SERVICE_KEYFILE={keyfile!r}: {_why(error)}"
        ) from None


class _PasswordError(Exception):
    pass


def _no_password() -> str:
    # Without this function OpenSSL asks for it on the terminal.
    raise _PasswordError


def _why(error: ssl.SSLError) -> str:
    if error.reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}:
        return "the key is not the one of the certificate"
    return "not a certificate and a key in PEM format"
