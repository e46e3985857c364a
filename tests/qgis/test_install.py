"""The backend's environment: made, stopped, gone on with, checked, used, removed.

pip and the environment are real; the packages come from a folder of wheels or from a server here.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import os
import shutil
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)
pytest.importorskip(
    "ensurepip",
    reason="QGIS's Python cannot make environments (Debian: apt-get install python3-venv)",
)

from helpers import classify, script, wait_for
from qgis.core import QgsApplication, QgsAuthMethodConfig, QgsFeedback, QgsSettings, QgsVectorLayer
from qgis.PyQt.QtNetwork import QSslCertificate
from rssc_geo_qgis import backend as backends
from rssc_geo_qgis import (
    child,
    install,
    network,
    place,
    python_search,
    settings,
    tasks,
    torch_build,
)
from rssc_geo_qgis.check import check_backend
from rssc_geo_qgis.install import InstallError, Sources

NOWHERE = "http://127.0.0.1:1/"


@pytest.fixture
def private(monkeypatch):
    """No backend but the one that is installed, and nothing that is set for pip."""
    settings.put(settings.PROGRAM, "")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(torch_build, "INDEXES", NOWHERE)
    # A busy machine's disk may have less free than a whole PyTorch takes.
    monkeypatch.setattr(torch_build, "CPU", dataclasses.replace(torch_build.CPU, disk_gb=0.2))
    monkeypatch.setattr(install, "CPU", torch_build.CPU)
    backends.forget()
    yield
    install.remove()
    backends.forget()


@pytest.fixture
def half_installed(private, begin_installation):
    """An environment that was stopped before its last step; all that is missing is rssc-geo."""
    begin_installation(place.folder())


def run(lines=None, feedback=None, **sources):
    install.install(
        Sources(**{name: str(value) for name, value in sources.items()}),
        feedback=feedback or QgsFeedback(),
        log=(print if lines is None else lines.append),
    )


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# From nothing to a map.


def test_from_a_folder_of_wheels_without_any_network(
    private, wheel, stub_wheels, scene, tmp_path, feedback, monkeypatch
):
    """All steps, from nothing; every connection would fail."""
    monkeypatch.setenv("PIP_INDEX_URL", NOWHERE)
    lines = []
    run(lines, feedback, rssc_geo=wheel, wheels=stub_wheels)
    assert feedback.percents == sorted(feedback.percents)
    assert feedback.percents[-1] <= 100
    assert any("Successfully installed rssc-geo" in line for line in lines), lines
    assert not any("connection" in line.lower() for line in lines)
    assert backends.find_backend().program == place.program_path()

    report = []
    check_backend(feedback=feedback, log=report.append)
    assert report[-1] == "the backend works"
    assert "PyTorch" in "\n".join(report)

    found = classify(INPUT=str(scene), OUTPUT=str(tmp_path / "map.gpkg"))
    assert QgsVectorLayer(found["OUTPUT"]).featureCount() > 0

    tasks.remove_task().start()
    wait_for(lambda: tasks.BackendTask.current is None)
    assert tasks.BackendTask.last.error == ""
    assert not Path(place.folder()).exists()
    with pytest.raises(backends.BackendError, match="is not installed"):
        backends.find_backend()


def test_the_install_task_as_the_button_starts_it(wheel, half_installed, web_server):
    """From an address with its hash, so that pip downloads.

    A program chosen before gives way to the installed one.
    """
    web_server.folder = wheel.parent
    settings.put(settings.INSTALL_FROM, f"{web_server.url}/{wheel.name}#sha256={sha256(wheel)}")
    settings.put(settings.WHEELS, str(wheel.parent))
    settings.put(settings.PROGRAM, "/nowhere/rssc-geo")
    task = tasks.install_task()
    lines, percents, ended = [], [], []
    task.line.connect(lines.append)
    task.progressChanged.connect(percents.append)
    task.ended.connect(ended.append)
    assert task.start()
    assert not tasks.check_task().start()  # one at a time
    wait_for(lambda: ended)
    assert ended == [""], (ended, lines)
    assert lines[-1] == "the backend works"
    assert percents == sorted(percents)
    assert not any(line.startswith("Progress") for line in lines)
    assert backends.find_backend().program == place.program_path()
    assert tasks.BackendTask.current is None
    assert tasks.BackendTask.last.lines == lines
    assert Path(place.log_path()).read_text().splitlines() == lines
    assert os.listdir(wheel.parent) == [wheel.name]


def test_the_wheel_in_the_zip_is_what_is_installed(
    wheel, half_installed, stub_wheels, monkeypatch, tmp_path
):
    monkeypatch.setattr(install, "bundled_wheel", lambda: str(wheel))
    lines = []
    run(lines, wheels=stub_wheels)
    assert any(f"Processing {wheel}" in line for line in lines)
    # Once more over it: a wheel of the same version is taken anew.
    module = next(Path(place.folder()).glob("lib/python3*/site-packages/rssc_geo/errors.py"))
    module.write_text("")
    run(lines, wheels=stub_wheels)
    assert module.read_text()


# What may be installed from.


@pytest.mark.parametrize(
    "source",
    [
        "rssc-geo",
        "rssc-geo>=0.1,<1",
        "rssc-geo==0.1.0",
        "rssc-geo==0.1.0 --hash=md5:0",
        "other==1 --hash=sha256:" + "0" * 64,
        "https://example.org/rssc_geo-0.1.0-py3-none-any.whl",
        "git+https://example.org/rssc-geo",
        "/nowhere/rssc_geo-0.1.0-py3-none-any.whl",
        "--index-url=https://example.org rssc-geo",
    ],
)
def test_what_is_not_pinned_by_a_hash_is_refused(private, source):
    with pytest.raises(InstallError, match="the name rssc-geo alone may be anyone's"):
        run(rssc_geo=source)
    assert not Path(place.folder()).exists()


def test_without_a_wheel_in_the_plugin(private):
    with pytest.raises(InstallError, match="carries no wheel of rssc-geo. Choose one"):
        run()


def test_a_file_of_constraints_that_is_not_there(private, wheel):
    with pytest.raises(InstallError, match="/nowhere/lock.txt does not exist"):
        run(rssc_geo=wheel, constraints="/nowhere/lock.txt")


@pytest.mark.parametrize("right", [True, False])
def test_a_pinned_requirement_from_an_index(wheel, half_installed, package_index, right):
    package_index.add(wheel, "rssc-geo")
    digest = sha256(wheel) if right else "0" * 64
    pinned = f"rssc-geo==0.1.0 --hash=sha256:{digest}"
    if right:
        run(rssc_geo=pinned, index=package_index.url)
        assert Path(place.program_path()).is_file()
    else:
        with pytest.raises(InstallError, match="downloading rssc-geo failed: .*DO NOT MATCH"):
            run(rssc_geo=pinned, index=package_index.url)
        assert not Path(place.program_path()).exists()


@pytest.mark.parametrize("right", [True, False])
def test_constraints_with_hashes_say_of_each_package_what_it_has_to_be(
    wheel, half_installed, stub_wheels, tmp_path, right
):
    lock = tmp_path / "lock.txt"
    (stub,) = stub_wheels.glob("torchvision-*.whl")
    version = stub.name.split("-")[1]
    digest = sha256(stub) if right else "0" * 64
    lock.write_text(f"torchvision=={version} --hash=sha256:{digest}\n")
    lines = []
    sources = {"rssc_geo": wheel, "wheels": stub_wheels, "constraints": lock}
    for entry in (tmp_path / "dependencies").glob("torchvision*"):
        entry.unlink()
    if right:
        run(lines, **sources)
        assert any("checking what was installed" in line for line in lines)
        assert Path(place.program_path()).is_file()
    else:
        with pytest.raises(InstallError, match="what the constraints name failed: .*DO NOT MATCH"):
            run(lines, **sources)


def test_constraints_without_hashes_hold_in_all_steps(private, wheel, stub_wheels, tmp_path):
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("torch==0.0.1\n")
    with pytest.raises(InstallError, match=r"installing PyTorch failed: ERROR: Resolution"):
        run(rssc_geo=wheel, wheels=stub_wheels, constraints=constraints)


# The network.


class Packages(http.server.SimpleHTTPRequestHandler):
    """A folder as a package index; asked as a proxy it answers for any host."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Proxy-Authorization")))
        if self.path.startswith("http://"):
            self.path = "/" + self.path.split("/", 3)[3]
        super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def package_index(tmp_path):
    root = tmp_path / "index"
    (root / "simple").mkdir(parents=True)
    handler = functools.partial(Packages, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked = []
        server.url = f"http://127.0.0.1:{server.server_port}/simple"

        def add(wheel, name, index="simple"):
            (root / index / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(wheel, root / index / name)

        server.add = add
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def add_stubs(server, folder, index="simple"):
    for stub in folder.glob("*.whl"):
        server.add(stub, stub.name.split("-")[0], index)


def test_an_index_instead_of_the_usual_one(private, wheel, stub_wheels, package_index):
    add_stubs(package_index, stub_wheels)
    run(rssc_geo=wheel, index=package_index.url)
    assert Path(place.program_path()).is_file()
    assert {path.split("/")[2] for path, _ in package_index.asked} >= {"pip", "torch"}


def test_the_first_network_error_is_what_the_user_reads(private, wheel):
    lines = []
    with pytest.raises(InstallError) as caught:
        run(lines, rssc_geo=wheel, index=f"{NOWHERE}simple")
    assert "Connection refused" in str(caught.value)
    assert "No matching distribution" not in str(caught.value)
    assert "Proxy and certificates are those of QGIS's own options" in str(caught.value)


@pytest.mark.parametrize("usual", ["first", "last"])
def test_the_usual_index_where_pytorch_s_has_nothing(
    half_installed, wheel, stub_wheels, package_index, tmp_path, monkeypatch, usual
):
    """And PyTorch's, where the user's own index is asked first and has none."""
    for entry in [*(tmp_path / "dependencies").glob("torch*")]:
        entry.unlink()
    monkeypatch.setattr(torch_build, "INDEXES", f"{package_index.url}/../whl/")
    add_stubs(package_index, stub_wheels, "simple" if usual == "last" else "whl/cpu")
    (tmp_path / "index" / "whl" / "cpu").mkdir(parents=True, exist_ok=True)
    if usual == "first":
        monkeypatch.setenv("PIP_INDEX_URL", package_index.url)
    else:
        configuration = tmp_path / "pip.conf"
        configuration.write_text(f"[install]\nindex-url = {package_index.url}\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    lines = []
    run(lines, rssc_geo=wheel, build="cpu")
    assert sum("installing PyTorch failed" in line for line in lines) == 1
    assert any("trying the next index" in line for line in lines)
    asked = [path for path, _ in package_index.asked if path.endswith("/torch/")]
    order = ["/simple/torch/", "/whl/cpu/torch/"]
    assert asked == (order if usual == "first" else order[::-1])


def test_the_cpu_build_where_no_index_has_the_card_s(
    half_installed, wheel, stub_wheels, package_index, tmp_path, monkeypatch
):
    for entry in [*(tmp_path / "dependencies").glob("torch*")]:
        entry.unlink()
    script(tmp_path / "nvidia-smi", "echo NVIDIA A10, 8.6, 580.1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(torch_build, "INDEXES", f"{package_index.url}/../whl/")
    monkeypatch.setenv("PIP_INDEX_URL", package_index.url)
    add_stubs(package_index, stub_wheels, "whl/cpu")
    monkeypatch.setattr(install, "check_space", lambda build: None)
    lines = []
    run(lines, rssc_geo=wheel)
    assert "NVIDIA A10 (8.6, driver 580): CUDA 13.0" in lines
    asked = [path for path, _ in package_index.asked if path.endswith("/torch/")]
    assert asked == ["/simple/torch/", "/whl/cu130/torch/", "/whl/cpu/torch/"]


@pytest.fixture
def qgis_settings():
    names = []

    def put(**values):
        for name, value in values.items():
            names.append(f"proxy/{name}")
            QgsSettings().setValue(names[-1], value)

    yield put
    for name in names:
        QgsSettings().remove(name)


def test_the_proxy_of_qgis(half_installed, wheel, package_index, qgis_settings, monkeypatch):
    """An index that only the proxy knows; it is told name and password."""
    package_index.add(wheel, "rssc-geo")
    qgis_settings(
        proxyEnabled=True,
        proxyType="HttpProxy",
        proxyHost="127.0.0.1",
        proxyPort=str(package_index.server_port),
        proxyUser="us er",
        proxyPassword="p@ss",
    )
    monkeypatch.setenv("PIP_TRUSTED_HOST", "packages.invalid")
    pinned = f"rssc-geo==0.1.0 --hash=sha256:{sha256(wheel)}"
    run(rssc_geo=pinned, index="http://packages.invalid/simple")
    assert Path(place.program_path()).is_file()
    assert package_index.asked[0] == (
        "http://packages.invalid/simple/rssc-geo/",
        "Basic dXMgZXI6cEBzcw==",
    )


def test_what_is_told_of_the_proxy(qgis_settings):
    assert network.environment() == {}
    qgis_settings(
        proxyEnabled=True,
        proxyType="Socks5Proxy",
        proxyHost="gate",
        proxyPort="1080",
        noProxyUrls=["http://intranet/maps", "localhost"],
    )
    told = network.environment()
    assert told["https_proxy"] == told["HTTPS_PROXY"] == told["HTTP_PROXY"] == "socks5h://gate:1080"
    assert told["no_proxy"] == "intranet,localhost"
    assert settings.environment() == told
    qgis_settings(proxyType="DefaultProxy")  # the system's: the children find it themselves
    assert network.environment() == {}
    qgis_settings(proxyType="HttpProxy", proxyEnabled=False)
    assert network.environment() == {}


def test_a_proxy_s_password_that_qgis_keeps(qgis_settings):
    """Told when QGIS's own password was entered; the user is not asked for it from here."""
    manager = QgsApplication.authManager()
    assert manager.setMasterPassword("master", verify=True)
    method = QgsAuthMethodConfig("Basic")
    method.setName("proxy")
    method.setConfig("username", "me")
    method.setConfig("password", "kept")
    stored = manager.storeAuthenticationConfig(method)
    assert stored[0] if isinstance(stored, tuple) else stored
    qgis_settings(
        proxyEnabled=True,
        proxyType="HttpProxy",
        proxyHost="gate",
        proxyPort="3128",
        authcfg=method.id(),
    )
    try:
        assert network.environment()["https_proxy"] == "http://me:kept@gate:3128"
        manager.clearMasterPassword()
        assert network.environment()["https_proxy"] == "http://gate:3128"
    finally:
        manager.setMasterPassword("master", verify=True)
        manager.removeAuthenticationConfig(method.id())
        manager.clearMasterPassword()


@pytest.fixture
def authority(tmp_path):
    """A certificate for 127.0.0.1 that signs itself; the server that shows it is `serve`d."""
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "certificate.pem")]
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subprocess.run([*made, *names, *files], check=True, capture_output=True)
    return tmp_path / "certificate.pem"


def test_the_certificates_of_qgis(half_installed, wheel, package_index, authority, monkeypatch):
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    package_index.add(wheel, "rssc-geo")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, authority.with_name("key.pem"))
    package_index.socket = context.wrap_socket(package_index.socket, server_side=True)
    url = package_index.url.replace("http:", "https:")
    pinned = f"rssc-geo==0.1.0 --hash=sha256:{sha256(wheel)}"
    with pytest.raises(InstallError, match="(?i)certificate"):
        run(rssc_geo=pinned, index=url)

    manager = QgsApplication.authManager()
    (certificate,) = QSslCertificate.fromPath(str(authority))
    assert manager.storeCertAuthority(certificate)
    manager.rebuildCaCertsCache()
    manager.rebuildTrustedCaCertsCache()
    try:
        run(rssc_geo=pinned, index=url)
        assert Path(place.program_path()).is_file()
        # What the user's environment names goes before.
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        assert "SSL_CERT_FILE" not in network.environment()
        monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/left-by-another.pem")
        assert Path(network.environment()["SSL_CERT_FILE"]).is_file()
    finally:
        manager.removeCertAuthority(certificate)
        manager.rebuildCaCertsCache()
        manager.rebuildTrustedCaCertsCache()


def test_variables_of_pip_and_certificates(private, monkeypatch, tmp_path, authority):
    """What would install elsewhere, or end every connection, does not reach the child."""
    for name, value in {
        "PIP_TARGET": str(tmp_path),
        "PIP_USER": "1",
        "PIP_NO_DEPS": "1",
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PIP_INDEX_URL": "http://kept/simple",
        "PIP_TRUSTED_HOST": "kept",
        "SSL_CERT_FILE": "/nowhere/left-by-another.pem",
        "REQUESTS_CA_BUNDLE": str(authority),
    }.items():
        monkeypatch.setenv(name, value)
    found = child.clean_environment()
    assert {name for name in found if name.startswith("PIP_")} == {
        "PIP_CONFIG_FILE",
        "PIP_INDEX_URL",
        "PIP_TRUSTED_HOST",
    }
    assert "SSL_CERT_FILE" not in found
    assert found["REQUESTS_CA_BUNDLE"] == str(authority)


def test_a_target_in_the_environment_changes_nothing(
    half_installed, wheel, stub_wheels, monkeypatch, tmp_path
):
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PIP_NO_DEPS", "1")
    run(rssc_geo=wheel, wheels=stub_wheels)
    assert Path(place.program_path()).is_file()
    assert not (tmp_path / "elsewhere").exists()


# What is there is not lost.


@pytest.fixture
def installed_that_does_not_answer(private):
    """An environment whose Python does not answer just now."""
    python = Path(place.python_path())
    python.parent.mkdir(parents=True)
    script(python, "exit 1")
    script(python.with_name("rssc-geo"), "echo rssc-geo 0.1.0")
    return python


def test_a_failed_probe_does_not_wipe_what_works(installed_that_does_not_answer, wheel):
    with pytest.raises(InstallError, match="Connection refused"):
        run(rssc_geo=wheel, index=NOWHERE)
    assert installed_that_does_not_answer.read_text() == "#!/bin/sh\nexit 1\n"
    assert "0.1.0" in Path(place.program_path()).read_text()
    assert not Path(install._aside()).exists()


def test_nor_does_a_stop(installed_that_does_not_answer, wheel):
    feedback = QgsFeedback()
    threading.Timer(1.0, feedback.cancel).start()
    run(feedback=feedback, rssc_geo=wheel, index=NOWHERE)
    assert installed_that_does_not_answer.read_text() == "#!/bin/sh\nexit 1\n"


def test_nor_does_a_crash(installed_that_does_not_answer):
    os.replace(place.folder(), install._aside())
    Path(place.folder()).mkdir()
    install._recover()
    assert "0.1.0" in Path(place.program_path()).read_text()


def test_an_environment_that_broke_is_made_again(private, wheel, stub_wheels):
    """Its Python was updated away: the link leads nowhere."""
    python = Path(place.python_path())
    python.parent.mkdir(parents=True)
    python.symlink_to("/nowhere/python3")
    stale = Path(place.folder()) / "stale"
    stale.write_text("")
    run(rssc_geo=wheel, wheels=stub_wheels)
    assert not stale.exists()
    assert not Path(install._aside()).exists()
    assert backends.find_backend().version == "0.1.0"


def test_cancel(private, wheel, stub_wheels):
    feedback, lines = QgsFeedback(), []
    timer = threading.Timer(1.0, feedback.cancel)
    timer.start()
    run(lines, feedback, rssc_geo=wheel, wheels=stub_wheels)
    assert any("Install backend continues from there" in line for line in lines)
    assert not Path(place.program_path()).exists()


# Space and place.


def test_too_little_space(private):
    with pytest.raises(
        InstallError, match=r"needs 900000 GB on the disk of /.*, which has [\d.]+ GB free"
    ):
        install.check_space(torch_build.Build("huge", "huge", 900_000))
    assert not Path(place.folder()).exists()


@pytest.fixture
def small_disk(private):
    """A file system of 8 MB where the environment would go.

    Less than it takes without any package.
    """
    where = Path(place.home())
    where.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(where)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield where
    subprocess.run(["umount", str(where)], check=True)


def test_a_small_disk_is_refused_before_anything_is_written(small_disk, wheel):
    with pytest.raises(
        InstallError, match=r"build\) needs .* GB on the disk of .* which has 0.0 GB free"
    ):
        run(rssc_geo=wheel)
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_is_left_empty(small_disk, wheel, monkeypatch):
    # As if others took the space after the check.
    monkeypatch.setattr(install, "check_space", lambda build: None)
    with pytest.raises(
        InstallError, match=r"The disk of .* is full. What was installed was deleted"
    ):
        run(rssc_geo=wheel)
    assert list(small_disk.iterdir()) == []


def test_the_place_is_one_for_all_profiles_and_may_be_chosen(private, tmp_path):
    profile = QgsApplication.qgisSettingsDirPath()
    assert place.folder() == str(
        Path(os.environ["HOME"], ".local", "share", "rssc-geo", "qgis-backend")
    )
    assert not place.folder().startswith(str(Path(profile, "rssc_geo")))
    settings.put(settings.PLACE, str(tmp_path))
    for path in (place.folder(), place.program_path(), place.python_path(), place.log_path()):
        assert path.startswith(str(tmp_path / "rssc-geo"))


# Which Python.


def test_no_suitable_python(private, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("executable", "exec_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path / "qgis-bin"))
    with pytest.raises(
        python_search.PythonMissingError, match=r"No Python 3.11 or newer .*python3-venv"
    ):
        python_search.suitable_python()


def test_on_windows_python_org_s_own_names_are_tried(private, monkeypatch):
    """Read from the candidates alone: there is no Windows here."""
    monkeypatch.setattr(python_search, "which", lambda name, _path: f"found/{name}")
    monkeypatch.setattr(sys, "executable", "/nowhere/qgis-bin.exe")
    with monkeypatch.context() as windows:
        windows.setattr(python_search.os, "name", "nt")
        candidates = list(python_search._candidates())
    assert candidates[-7:-4] == ["found/py", "found/python", "found/python3"]


def test_on_macos_the_folders_of_installers_are_looked_in(private, monkeypatch):
    """The same: a program started from the Finder has not got them on its PATH."""
    places = set()
    monkeypatch.setattr(python_search, "which", lambda name, path: places.add(path))
    with monkeypatch.context() as macos:
        macos.setattr(python_search.sys, "platform", "darwin")
        list(python_search._candidates())
    assert places == {"/usr/bin:/bin:/usr/local/bin:/opt/homebrew/bin"}


def test_qgis_s_own_python_is_taken(private):
    assert python_search.suitable_python() == sys.executable
