"""A real QGIS without windows, in a profile of its own, and a real backend."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "qgis_plugin"
VENV = Path(os.environ.get("RSSC_TEST_VENV", ROOT / ".venv"))
BACKEND = Path(os.environ.get("RSSC_TEST_BACKEND", VENV / "bin" / "rssc-geo"))
PYTHON = VENV / "bin" / "python"
DEPENDENCIES = next((VENV / "lib").glob("python3.*/site-packages"), None)
PROCESSING = "/usr/share/qgis/python/plugins"
QGIS = shutil.which("qgis.bin") or shutil.which("qgis")
_STATUS = pytest.StashKey[int]()

try:
    import qgis.core  # noqa: F401 -- is it here?
except ImportError:
    pass  # each test module skips itself, with the reason
else:
    PROFILE = tempfile.mkdtemp(prefix="rssc-qgis-")
    os.environ.update(
        QT_QPA_PLATFORM="offscreen",
        QGIS_CUSTOM_CONFIG_PATH=PROFILE,
        HOME=PROFILE,
        XDG_RUNTIME_DIR=PROFILE,
        LC_ALL="C.UTF-8",
    )
    # helpers.py lies here.
    sys.path[:0] = [str(PLUGINS), PROCESSING, str(Path(__file__).parent)]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_STATUS] = int(exitstatus)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave without the interpreter's clean-up, in which QGIS's objects crash now and then."""
    if "qgis.core" not in sys.modules:
        return
    shutil.rmtree(PROFILE, ignore_errors=True)
    if _STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_STATUS])


@pytest.fixture(scope="session", autouse=True)
def application() -> Iterator[object]:
    from qgis.core import QgsApplication

    app = QgsApplication([], True, PROFILE)
    app.initQgis()
    from processing.core.Processing import Processing
    from rssc_geo_qgis.provider import RsscGeoProvider

    Processing.initialize()
    app.provider = RsscGeoProvider()
    app.processingRegistry().addProvider(app.provider)
    yield app
    app.exitQgis()


@pytest.fixture(scope="session")
def program() -> Path:
    """The project's program."""
    if not BACKEND.is_file():
        pytest.fail(
            f"{BACKEND} is not there: make the project's .venv first (make test), or set"
            " RSSC_TEST_BACKEND"
        )
    return BACKEND


@pytest.fixture(scope="session")
def loaded_program(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same, whose libraries are loaded once for all tests; itself where another was chosen."""
    if "RSSC_TEST_BACKEND" in os.environ:
        yield program
        return
    import loaded_backend

    process, found = loaded_backend.start(PYTHON, ROOT, tmp_path_factory.mktemp("loaded"))
    yield found
    process.communicate()


@pytest.fixture(autouse=True)
def backend(application: object, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The project's program, chosen in the settings; with its libraries loaded, or not (``cold``).

    The settings and the project are fresh for each test; what the program answered is kept.
    """
    cold = request.node.get_closest_marker("cold")
    program = request.getfixturevalue("program" if cold else "loaded_program")
    from qgis.core import QgsProject
    from rssc_geo_qgis import settings

    for name in settings.ALL:
        settings.put(name, "")
    settings.put(settings.PROGRAM, str(program))
    yield program
    QgsProject.instance().clear()


@pytest.fixture(scope="session")
def display() -> Iterator[str]:
    """A screen of its own for desktops."""
    if QGIS is None or shutil.which("Xvfb") is None:
        pytest.skip("the desktop test needs qgis and Xvfb (Debian: qgis xvfb)")
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "1600x1000x24"],
        stdout=subprocess.PIPE,
        text=True,
    )
    yield f":{server.stdout.readline().strip()}"
    server.terminate()
    server.communicate()


@pytest.fixture(scope="session")
def run_session(display: str) -> Callable[..., dict[str, Any]]:
    """Run a script of this folder in a QGIS desktop whose user has the folder ``home``.

    The example scene is drawn there as scene.tif, unless it is there already; the profile has the
    plugin. What the script told, and its pictures where RSSC_SCREENSHOTS wants them (``pictures``:
    how their names begin).
    """

    def run(
        script: str, home: Path, settings: str, pictures: str, more: dict[str, str] | None = None
    ) -> dict[str, Any]:
        folder = home / "profiles" / "default" / "QGIS"
        folder.mkdir()
        (folder / "QGIS3.ini").write_text(
            "[PythonPlugins]\nrssc_geo_qgis=true\nprocessing=true\n"
            f"[rssc_geo]\n{settings}\n[qgis]\nenableMacros=0\n"
        )
        scene = home / "scene.tif"
        if not scene.exists():
            draw = [PYTHON, ROOT / "examples" / "make_demo_scene.py", scene, "--gsd", "3"]
            subprocess.run(draw, check=True)
        environment = {
            **os.environ,
            "DISPLAY": display,
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",  # QGIS's Python is not that of a virtual environment
            "RSSC_SESSION": str(home),
            **(more or {}),
        }
        for name in ("QT_QPA_PLATFORM", "QGIS_CUSTOM_CONFIG_PATH", "PIP_FIND_LINKS"):
            environment.pop(name, None)
        session = Path(__file__).with_name(script)
        desktop = [QGIS, "--nologo", "--noversioncheck", "--profiles-path", home, "--code", session]
        ended = subprocess.run(
            desktop, env=environment, check=False, timeout=600, capture_output=True
        )
        told = json.loads((home / "told.json").read_text("utf-8"))
        screenshots = os.environ.get("RSSC_SCREENSHOTS")
        for file in home.glob(f"{pictures}-*.png") if screenshots else ():
            shutil.copy(file, ROOT / screenshots)
        assert "failed" not in told, told["failed"]
        assert ended.returncode == 0
        return told

    return run


@pytest.fixture
def write_raster() -> Callable[..., Path]:
    """Write a GeoTIFF of colored blocks; UTM 32N at 2 m unless said otherwise."""
    return _write_raster


def _write_raster(
    path: Path,
    *,
    columns: int = 800,
    rows: int = 600,
    epsg: int | None = 32632,
    corner: tuple[float, float] = (500_000, 5_000_000),
) -> Path:
    import numpy as np
    from osgeo import gdal, osr

    random = np.random.default_rng(3)
    blocks = random.integers(20, 235, (3, -(-rows // 100), -(-columns // 100)))
    pixels = blocks.repeat(100, 1).repeat(100, 2)[:, :rows, :columns] + random.integers(
        -15, 15, (3, rows, columns)
    )
    dataset = gdal.GetDriverByName("GTiff").Create(
        str(path), columns, rows, 3, options=["PHOTOMETRIC=RGB"]
    )
    dataset.SetGeoTransform((corner[0], 2, 0, corner[1], 0, -2))
    if epsg:
        reference = osr.SpatialReference()
        reference.ImportFromEPSG(epsg)
        dataset.SetProjection(reference.ExportToWkt())
    for band in range(3):
        dataset.GetRasterBand(band + 1).WriteRaster(
            0, 0, columns, rows, pixels[band].astype("uint8").tobytes()
        )
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return _write_raster(tmp_path / "scene.tif")


class _Site(http.server.SimpleHTTPRequestHandler):
    """Files of ``server.folder`` with byte ranges, and one picture for every tile /z/x/y.png.

    Keeps what it was asked for.
    """

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        time.sleep(self.server.delay_s)
        tile = self.path.endswith(".png")
        data = (
            self.server.tile if tile else (self.server.folder / self.path.lstrip("/")).read_bytes()
        )
        start, end = 0, len(data)
        if "Range" in self.headers:
            first, _, last = self.headers["Range"].partition("=")[2].partition("-")
            start, end = int(first), min(int(last) + 1, end)
        self.send_response(206 if "Range" in self.headers else 200)
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("Content-Type", "image/png" if tile else "image/tiff")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        self.wfile.write(data[start:end])

    def do_HEAD(self) -> None:
        path = self.server.folder / self.path.lstrip("/")
        self.send_response(200 if path.is_file() else 404)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(path.stat().st_size if path.is_file() else 0))
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def web_server(tmp_path: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        server.url, server.folder, server.tile, server.asked = (
            f"http://127.0.0.1:{server.server_port}",
            tmp_path,
            b"",
            [],
        )
        server.delay_s = 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin's zip, as `make plugin` builds it."""
    if DEPENDENCIES is None:
        pytest.skip("the project's .venv is not there (make test)")
    path = tmp_path_factory.mktemp("zip") / "plugin.zip"
    subprocess.run([str(PYTHON), ROOT / "qgis_plugin" / "build_zip.py", path], check=True)
    return path


@pytest.fixture(scope="session")
def wheel(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, out of the zip."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(archive) as files:
        name = next(name for name in files.namelist() if name.endswith(".whl"))
        return Path(files.extract(name, folder))


@pytest.fixture
def begin_installation(tmp_path: Path) -> Callable[[object], None]:
    """Make the plugin's environment as one stopped before its last step leaves it.

    Its Python and dependencies, pip among them, are those of the project's own .venv, shown to it
    by a .pth file: no network is needed, and QGIS's Python may be another.
    """

    def begin(folder: object) -> None:
        shown = tmp_path / "dependencies"
        shown.mkdir()
        for entry in DEPENDENCIES.iterdir():
            if (
                not entry.name.startswith(("rssc_geo", "__editable__", "__pycache__"))
                and entry.suffix != ".pth"
            ):
                (shown / entry.name).symlink_to(entry)
        subprocess.run([str(PYTHON), "-m", "venv", "--without-pip", str(folder)], check=True)
        site = next(Path(str(folder)).glob("lib/python3.*/site-packages"))
        (site / "dependencies.pth").write_text(f"{shown}\n")

    return begin


@pytest.fixture(scope="session")
def stub_wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels: torch and torchvision with nothing inside but the way to the real ones.

    A .pth file shows the dependencies of the project's .venv, so that what is installed from here
    works; a whole PyTorch would take gigabytes. Only where QGIS's Python and that of the .venv are
    of one version.
    """
    if DEPENDENCIES is None or DEPENDENCIES.parent.name != f"python3.{sys.version_info[1]}":
        pytest.skip("QGIS's Python is of another version than the project's .venv")
    shown, folder = tmp_path_factory.mktemp("dependencies"), tmp_path_factory.mktemp("wheels")
    for entry in DEPENDENCIES.iterdir():
        if (
            not entry.name.startswith(("rssc_geo", "__editable__", "__pycache__", "pip"))
            and entry.suffix != ".pth"
        ):
            (shown / entry.name).symlink_to(entry)
    for name in ("torch", "torchvision"):
        write_wheel(folder, name, next(DEPENDENCIES.glob(f"{name}-*.dist-info")), shown)
    return folder


def write_wheel(folder: Path, name: str, real: Path, shown: Path) -> None:
    """A wheel with a name and version, whose only file is ``<name>.pth`` with a folder in it."""
    version = real.name.removesuffix(".dist-info").split("-")[1].partition("+")[0]
    info = f"{name}-{version}.dist-info"
    contents = {
        f"{name}.pth": f"{shown}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*contents, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in {**contents, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)


@pytest.fixture
def children() -> Callable[[str], list[tuple[int, str]]]:
    """Number and command line of living processes whose command line holds a text, from /proc."""

    def find(marker: str) -> list[tuple[int, str]]:
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                line = (
                    Path("/proc", entry, "cmdline")
                    .read_bytes()
                    .replace(b"\0", b" ")
                    .decode(errors="replace")
                )
            except OSError:
                continue
            if int(entry) != os.getpid() and marker in line:
                found.append((int(entry), line))
        return found

    return find


@pytest.fixture
def feedback() -> object:
    """Keeps what a run tells.

    ``progress`` values, ``lines`` of its log, ``warnings``, ``errors``.
    """
    from qgis.core import QgsProcessingFeedback

    class Recorder(QgsProcessingFeedback):
        def __init__(self) -> None:
            super().__init__(False)
            self.percents, self.lines, self.warnings, self.errors = [], [], [], []
            self.progressChanged.connect(self.percents.append)

        def pushInfo(self, text):
            self.lines.append(text)

        pushConsoleInfo = pushCommandInfo = setProgressText = pushDebugInfo = pushInfo

        def pushWarning(self, text):
            self.warnings.append(text)

        def reportError(self, text, fatalError=False):
            self.errors.append(text)

    return Recorder()


@pytest.fixture
def run_in_desktop(feedback: object) -> Callable[[object, dict[str, object]], dict[str, object]]:
    """Run an algorithm as the dialog does it.

    Check, run, then load what is to be loaded into the project.
    """
    from processing.gui.Postprocessing import handleAlgorithmResults
    from qgis.core import QgsProcessingContext, QgsProject

    def run(alg: object, parameters: dict[str, object]) -> dict[str, object]:
        context = QgsProcessingContext()
        context.setProject(QgsProject.instance())
        good, message = alg.checkParameterValues(parameters, context)
        assert good, message
        found, good = alg.run(parameters, context, feedback)
        assert good, feedback.errors
        assert handleAlgorithmResults(alg, context, feedback, parameters=parameters)
        return found

    return run
