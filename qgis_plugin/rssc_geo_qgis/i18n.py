"""Texts in the language of QGIS, from ``i18n/rssc_geo_<language>.qm`` where there is one.

``make translations`` collects the texts; arguments of ``tr`` have to be literals, with names in
braces for values. Many are translated once, when a module is imported: ``load_translation`` is
called before that.
"""

from __future__ import annotations

import os

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QCoreApplication, QTranslator

_CONTEXT = "@default"  # where pylupdate puts what is said outside Qt's own classes


def tr(text: str) -> str:
    """The text in the user's language, or as it is."""
    return QCoreApplication.translate(_CONTEXT, text)


def load_translation() -> QTranslator | None:
    """Install the translation for QGIS's language; the caller keeps what is returned."""
    language = QgsApplication.locale()
    folder = os.path.join(os.path.dirname(__file__), "i18n")
    translator = QTranslator()
    for name in (language, language.partition("_")[0]):
        if translator.load(os.path.join(folder, f"rssc_geo_{name}.qm")):
            QCoreApplication.installTranslator(translator)
            return translator
    return None
