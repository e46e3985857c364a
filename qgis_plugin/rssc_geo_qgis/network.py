"""QGIS's network settings, passed to child processes in environment variables."""

from __future__ import annotations

import os
import tempfile
from urllib.parse import quote, urlsplit

from qgis.core import QgsApplication, QgsAuthMethodConfig, QgsSettings

_SCHEMES = {"HttpProxy": "http", "HttpCachingProxy": "http", "Socks5Proxy": "socks5h"}
_CERTIFICATES = ("CURL_CA_BUNDLE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


def environment() -> dict[str, str]:
    """The proxy and the certificates that were entered in QGIS; empty where there are none.

    The system's own proxy is not passed: the children find it as QGIS does.
    """
    return {**_proxy(), **_certificates()}


def _proxy() -> dict[str, str]:
    # From the settings: QGIS's own access to the network belongs to one thread each.
    chosen = QgsSettings()
    scheme = _SCHEMES.get(chosen.value("proxy/proxyType", ""))
    host = chosen.value("proxy/proxyHost", "")
    if (
        scheme is None
        or not host
        or not chosen.value("proxy/proxyEnabled", defaultValue=False, type=bool)
    ):
        return {}
    user, password = _credentials(chosen)
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    port = chosen.value("proxy/proxyPort", "")
    url = f"{scheme}://{login}{'@' if login else ''}{host}{f':{port}' if port else ''}"
    direct = [*_texts(chosen, "proxy/noProxyUrls"), *_texts(chosen, "proxy/proxyExcludedUrls")]
    found = {"http_proxy": url, "https_proxy": url, "no_proxy": ",".join(map(_host, direct))}
    return {name: value for key, value in found.items() for name in (key, key.upper())}


def _credentials(chosen: QgsSettings) -> tuple[str, str]:
    """Name and password for the proxy: as entered, or as QGIS keeps them under its own password.

    Not those that it would have to ask the user for.
    """
    configuration = chosen.value("proxy/authcfg", "")
    manager = QgsApplication.authManager()
    if configuration and not manager.isDisabled() and manager.masterPasswordIsSet():
        method = QgsAuthMethodConfig()
        if manager.loadAuthenticationConfig(configuration, method, full=True):
            return method.config("username"), method.config("password")
    return chosen.value("proxy/proxyUser", ""), chosen.value("proxy/proxyPassword", "")


def _texts(chosen: QgsSettings, name: str) -> list[str]:
    value = chosen.value(name, [])
    return [value] if isinstance(value, str) else list(value or [])


def _host(address: str) -> str:
    return urlsplit(address).hostname or address.strip("/*")


def _certificates() -> dict[str, str]:
    """A file of all authorities that QGIS trusts, where the user gave it more than the system's.

    What the user's environment names goes before.
    """
    manager = QgsApplication.authManager()
    if manager.isDisabled() or not (manager.extraFileCAs() or manager.databaseCAs()):
        return {}
    missing = [name for name in _CERTIFICATES if not os.path.exists(os.environ.get(name, ""))]
    return dict.fromkeys(missing, _write(bytes(manager.trustedCaCertsPemText())))


def _write(certificates: bytes) -> str:
    """A file with this content; it is written once and lies where only the user may write."""
    folder = os.path.join(QgsApplication.qgisSettingsDirPath(), "rssc_geo")
    path = os.path.join(folder, "certificates.pem")
    os.makedirs(folder, exist_ok=True)
    try:
        with open(path, "rb") as file:
            if file.read() == certificates:
                return path
    except FileNotFoundError:
        pass
    handle, temporary = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "wb") as file:
        file.write(certificates)
    os.replace(temporary, path)
    return path
