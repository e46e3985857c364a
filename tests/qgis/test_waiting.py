"""QGIS's own thread never waits for the backend, and no signal goes to a process that is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

from helpers import algorithm, script, wait_for
from qgis.core import QgsApplication, QgsFeedback
from qgis.gui import QgsMapCanvas, QgsMessageBar
from qgis.PyQt.QtCore import QCoreApplication, QTimer
from qgis.PyQt.QtWidgets import QMainWindow, QPushButton
from rssc_geo_qgis import backend as backends
from rssc_geo_qgis import child, settings, tasks
from rssc_geo_qgis.options_page import OptionsPage
from rssc_geo_qgis.plugin import RsscGeoPlugin

pytestmark = pytest.mark.cold  # processes are looked for, and get signals


class Interface:
    """What the plugin uses of QGIS's window."""

    def __init__(self):
        self.window = QMainWindow()
        self.bar = QgsMessageBar(self.window)
        self.canvas = QgsMapCanvas(self.window)
        self.menu, self.factories = [], []

    def mainWindow(self):
        return self.window

    def mapCanvas(self):
        return self.canvas

    def addDockWidget(self, area, dock):
        self.window.addDockWidget(area, dock)

    def removeDockWidget(self, dock):
        self.window.removeDockWidget(dock)

    def messageBar(self):
        return self.bar

    def addPluginToMenu(self, _title, action):
        self.menu.append(action)

    def removePluginMenu(self, _title, action):
        self.menu.remove(action)

    def registerOptionsWidgetFactory(self, factory):
        self.factories.append(factory)

    def unregisterOptionsWidgetFactory(self, factory):
        self.factories.remove(factory)


@pytest.fixture
def plugin(application):
    """The plugin switched on in a window; the provider of the other tests gives way meanwhile."""
    registry = QgsApplication.processingRegistry()
    registry.removeProvider(application.provider)
    tasks.BackendTask.last = None
    backends.forget()
    made = RsscGeoPlugin(Interface())
    yield made
    if made.provider in registry.providers():
        made.unload()
    idle()
    from rssc_geo_qgis.provider import RsscGeoProvider

    tasks.board.closed = False
    application.provider = RsscGeoProvider()
    registry.addProvider(application.provider)


def idle():
    wait_for(lambda: tasks.BackendTask.current is None and tasks._Look.running is None, seconds=40)


def end_look(program, children):
    """End the look at a program that hangs, whenever its process comes."""

    def ended():
        if children(str(program)):
            child.end_all()
        return tasks.BackendTask.current is None and tasks._Look.running is None

    wait_for(ended, seconds=60)


@pytest.fixture
def hanging(tmp_path):
    """A backend that never answers."""
    program = script(tmp_path / "hanging backend", "sleep 600")
    settings.put(settings.PROGRAM, str(program))
    backends.forget()
    return program


@pytest.fixture
def gaps_s():
    """How long QGIS's event loop was away, each time."""
    found, last = [], [time.monotonic()]

    def tick():
        found.append(time.monotonic() - last[0])
        last[0] = time.monotonic()

    timer = QTimer()
    timer.timeout.connect(tick)
    timer.start(5)
    yield found
    timer.stop()


@pytest.fixture
def threads(monkeypatch):
    """The threads that started a child."""
    found, run = [], child._run

    def record(*arguments):
        found.append(threading.current_thread())
        return run(*arguments)

    monkeypatch.setattr(child, "_run", record)
    return found


def test_a_hanging_backend_holds_nothing_up(plugin, hanging, children, gaps_s, threads):
    """Each step of a user; a wait for the backend would take half a minute.

    The steps' own work is far below 100 ms; a busy machine may add to some.
    """
    page = OptionsPage(None)
    steps = {
        "switch on": plugin.initGui,
        "list": lambda: [one.create().canExecute() for one in plugin.provider.algorithms()],
        "open the options": lambda: OptionsPage(None),
        "accept the options": page.apply,
        "check": plugin.check,
        "describe": plugin.diagnose,
        "switch off": plugin.unload,
    }
    took_s = {}
    for name, step in steps.items():
        began = time.monotonic()
        step()
        took_s[name] = time.monotonic() - began
        end = time.monotonic() + 0.3
        wait_for(lambda end=end: time.monotonic() > end)
    assert max(took_s.values()) < 1, took_s
    assert sorted(took_s.values())[-2] < 0.1, took_s
    assert sorted(gaps_s)[int(len(gaps_s) * 0.98)] < 0.1
    assert threads
    assert threading.main_thread() not in threads
    wait_for(lambda: not children(str(hanging)), seconds=5)


def test_what_is_not_known_yet_may_run_and_is_told_when_it_is_known(
    plugin, hanging, tmp_path, children
):
    plugin.initGui()
    assert algorithm("classify").canExecute() == (True, "")
    page = OptionsPage(None)
    assert page.status.text() == "Checking the backend …"
    other = script(tmp_path / "other", "echo GNU nano 7.2")
    settings.put(settings.PROGRAM, str(other))
    end_look(hanging, children)
    assert "is not rssc-geo" in page.status.text()
    assert not algorithm("classify").canExecute()[0]


def test_the_offer_to_install_comes_after_the_look(plugin, tmp_path):
    settings.put(settings.PROGRAM, str(script(tmp_path / "old", "echo rssc-geo 0.0.9")))
    backends.forget()
    plugin.initGui()
    assert plugin.iface.bar.items() == []
    idle()
    (item,) = plugin.iface.bar.items()
    assert "version 0.0.9, this plugin needs 0.1 or newer" in item.text()
    assert [button.text() for button in item.findChildren(QPushButton)][-1:] == ["Install backend"]


def test_nothing_is_offered_where_a_backend_works(plugin, backend):
    plugin.initGui()
    idle()
    assert plugin.iface.bar.items() == []
    assert backends.known_backend().program == str(backend)


def test_a_backend_is_asked_once(plugin, backend, threads):
    plugin.initGui()
    idle()
    asked = len(threads)
    assert asked >= 2
    for _ in range(3):
        assert all(one.create().canExecute()[0] for one in plugin.provider.algorithms())
        tasks.look()
        idle()
    assert len(threads) == asked


def test_a_task_that_the_page_started_is_told_in_the_message_bar(plugin, hanging, children):
    """Also when the page is gone by then."""
    plugin.initGui()
    page = OptionsPage(None)
    page.check_button.click()
    page.deleteLater()
    del page
    QCoreApplication.processEvents()
    wait_for(lambda: len(child._stops) >= 2, seconds=20)  # the first look as well
    wait_for(lambda: len(children(str(hanging))) >= 2, seconds=20)
    child.end_all()
    wait_for(lambda: tasks.BackendTask.current is None, seconds=20)
    end_look(hanging, children)
    told = [item.text() for item in plugin.iface.bar.items()]
    assert any("Check the RSSC Geo backend: The backend" in text for text in told), told


def test_what_outlives_the_event_loop_is_waited_for(hanging):
    """Python must not go before the threads that use it."""
    ended = []
    thread = threading.Thread(target=lambda: ended.append(error(hanging)))
    thread.start()
    while not child._stops:
        time.sleep(0.01)
    child.wait_for_all()
    thread.join(1)
    assert ended == ["it was stopped"]


def error(program):
    try:
        child.ask([str(program)])
    except child.ChildError as met:
        return str(met)


def test_stop_ends_also_what_is_only_asked(hanging, children):
    assert tasks.check_task().start()
    wait_for(lambda: children(str(hanging)))
    began = time.monotonic()
    tasks.BackendTask.current.cancel()
    wait_for(lambda: tasks.BackendTask.current is None)
    assert time.monotonic() - began < 1.5
    end_look(hanging, children)
    assert "could not be queried: it was stopped" in tasks.BackendTask.last.error
    assert backends.known_backend() is None


def test_no_answer_in_time(hanging, children):
    with pytest.raises(child.ChildError, match=r"no answer within 0.3 s"):
        child.ask([str(hanging)], timeout_s=0.3)
    assert not children(str(hanging))


@pytest.fixture
def signalled(monkeypatch):
    """Processes that a signal was sent to; each must still be there, or not be waited for yet."""
    found, send = [], os.killpg

    def checked(process, number):
        # Raises ChildProcessError for one that was waited for: the number may be another's by then.
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        found.append((process, number))
        send(process, number)

    monkeypatch.setattr(child.os, "killpg", checked)
    return found


@pytest.mark.parametrize(
    "text", ["exit 0", "exit 3", "kill -9 $$", "sleep 0.2", "sleep 5 & exit 0"]
)
def test_no_signal_after_a_process_was_waited_for(tmp_path, signalled, text):
    program = script(tmp_path / "program", text)
    for _ in range(5):
        child.run_child([str(program)], feedback=QgsFeedback(), on_stdout=print, on_stderr=print)
    assert {number for _, number in signalled} == {signal.SIGKILL}


def test_a_process_that_was_waited_for_gets_no_signal(signalled):
    process = subprocess.Popen(["/bin/true"], stdin=subprocess.PIPE, text=True)
    process.wait()
    child.stop(process)
    assert signalled == []


def test_where_the_system_cannot_look_without_waiting(tmp_path, signalled, monkeypatch):
    """As Python on macOS before 3.13."""
    waitid = os.waitid
    monkeypatch.delattr(child.os, "waitid")
    program = script(tmp_path / "program", "exit 0")
    feedback = QgsFeedback()
    ended = child.run_child([str(program)], feedback=feedback, on_stdout=print, on_stderr=print)
    assert (ended.code, signalled) == (0, [])
    monkeypatch.setattr(child.os, "waitid", waitid, raising=False)


def test_what_a_child_left_behind_goes_with_it(tmp_path, children):
    program = script(tmp_path / "program", f"{sys.executable} -c 'import time; time.sleep(61)' &")
    child.run_child([str(program)], feedback=QgsFeedback(), on_stdout=print, on_stderr=print)
    wait_for(lambda: not children("time.sleep(61)"), seconds=5)


def test_programs_are_not_looked_for_in_the_working_directory(tmp_path, monkeypatch):
    script(tmp_path / "rssc-geo", "echo rssc-geo 9.9.9")
    script(tmp_path / "nvidia-smi", "echo evil")
    monkeypatch.chdir(tmp_path)
    for path in (f"{os.pathsep}/usr/bin", f".{os.pathsep}/usr/bin", f"/usr/bin{os.pathsep}"):
        monkeypatch.setenv("PATH", path)
        assert child.which("rssc-geo") == child.which("nvidia-smi") == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert child.which("rssc-geo") == str(tmp_path / "rssc-geo")
    with pytest.raises(child.ChildError, match="not the full name of a program"):
        child.ask(["rssc-geo", "--version"])
