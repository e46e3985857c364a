"""How QGIS reaches the network, told to its children by the variables that they understand."""

from __future__ import annotations

import os
import tempfile
from urllib.parse import quote, urlsplit

from qgis.core import QgsApplication, QgsNetworkAccessManager
from qgis.PyQt.QtNetwork import QNetworkProxy

_SCHEMES = {
    QNetworkProxy.ProxyType.HttpProxy: "http",
    QNetworkProxy.ProxyType.HttpCachingProxy: "http",
    QNetworkProxy.ProxyType.Socks5Proxy: "socks5h",
}
_CERTIFICATES = ("CURL_CA_BUNDLE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


def environment() -> dict[str, str]:
    """The proxy and the certificates that were entered in QGIS; empty where there are none.

    The system's own proxy is not told: the children find it as QGIS does.
    """
    return {**_proxy(), **_certificates()}


def _proxy() -> dict[str, str]:
    manager = QgsNetworkAccessManager.instance()
    proxy = manager.fallbackProxy()
    scheme = _SCHEMES.get(proxy.type())
    if scheme is None or not proxy.hostName():
        return {}
    user = quote(proxy.user(), safe="")
    if proxy.password():
        user += ":" + quote(proxy.password(), safe="")
    port = f":{proxy.port()}" if proxy.port() else ""
    url = f"{scheme}://{user}{'@' if user else ''}{proxy.hostName()}{port}"
    direct = ",".join(_host(text) for text in [*manager.noProxyList(), *manager.excludeList()])
    found = {"http_proxy": url, "https_proxy": url, "no_proxy": direct}
    return {name: value for key, value in found.items() for name in (key, key.upper())}


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
