"""Zero-shot classify."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingParameterString,
)

from ..i18n import tr
from . import parameters as shared
from .landuse import LandUseAlgorithm


class ZeroShot(LandUseAlgorithm):
    """``rssc-geo zero-shot``."""

    NAME = "zeroshot"
    COMMAND = "zero-shot"
    TITLE = tr("Zero-shot classify")
    TAGS = tr("land use cover scene classification words clip open vocabulary ai")
    # What is like no named class is `other`; familiarity is of the model's own classes.
    LEFT_OUT = frozenset({"no_unknown"})
    HELP = tr(
        "Makes a land-use map with classes of your own words, without training, "
        "such as <i>vineyard, olive grove, greenhouse</i>.<br><br>Every tile "
        "gets the class whose words fit it best, or <i>other</i> where something "
        "that was not named fits better. Name what there is, not only what you "
        "look for. The results are those of Classify scene."
    )

    def parameters(self) -> shared.Parameters:
        classes = QgsProcessingParameterString("CLASSES", tr("Classes"), multiLine=True)
        return [
            shared.described(
                classes, tr("Names of the classes, separated by commas or one a line.")
            ),
        ]

    def more_arguments(
        self, parameters: dict[str, Any], context: QgsProcessingContext, work: str
    ) -> list[str]:
        text = self.parameterAsString(parameters, "CLASSES", context)
        names = [name.strip() for name in text.replace("\n", ",").split(",") if name.strip()]
        if len(names) < 1 + self.parameterAsBool(parameters, "NO_OTHER", context):
            raise QgsProcessingException(
                tr("Classes: {text!r} names {count} class(es); give more.").format(
                    text=text.strip(), count=len(names)
                )
            )
        return ["--classes=" + ",".join(names), *super().more_arguments(parameters, context, work)]
