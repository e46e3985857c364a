"""How a captioner is used: what a large one is asked, when, and where its answers are kept.

No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rssc_geo.errors import UsageError

DEFAULT_THRESHOLD = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionOptions:
    """Settings of the captioners; the defaults are those of the command line, and all but ``beam``
    of ``hf:`` and ``openai:``.

    ``prompt``: a preset's name or the text to ask (``rssc_geo.captioning.prompts``); ``max_tokens``
    of an answer; ``when``: "always", or "uncertain:THRESHOLD" for only the tiles whose class is
    less likely than that without them ("uncertain": 0.9); ``share``: tiles that look the same get
    one caption; ``cache``: SQLite file of captions, None = the user's; ``requests``, ``timeout_s``:
    requests to a server at a time, seconds an answer may take; ``batch_size``, ``quantize``,
    ``trust_remote_code``: of ``hf:``, see ``HuggingFaceCaptioner``; ``beam``: sentences that the
    model's own captioner follows at a time, see ``CaptionDecoder.beam``; 1 takes the likeliest word
    each time.
    """

    prompt: str = "published"
    max_tokens: int = 192
    when: str = "always"
    share: bool = False
    cache: str | Path | None = None
    requests: int = 8
    timeout_s: float = 120.0
    batch_size: int | None = None
    quantize: str | None = None
    trust_remote_code: bool = False
    beam: int = 1

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.requests < 1 or not self.timeout_s > 0:
            raise UsageError(
                f"a caption of {self.max_tokens} tokens, {self.requests} requests at a time,"
                f" {self.timeout_s:g} s for an answer: all must be positive"
            )
        if self.beam < 1:
            raise UsageError(f"a beam of {self.beam} sentences: at least 1")
        _ = self.threshold

    @property
    def threshold(self) -> float | None:
        """Tiles under this confidence are captioned; None: all are.

        Raises ``UsageError`` where ``when`` is neither.
        """
        if self.when == "always":
            return None
        word, _, number = self.when.partition(":")
        try:
            threshold = float(number) if number else DEFAULT_THRESHOLD
        except ValueError:
            threshold = -1.0
        if word != "uncertain" or not 0 < threshold <= 1:
            raise UsageError(
                f"--caption-when {self.when!r} is not always, uncertain or uncertain:0.8 (above 0,"
                " up to 1)"
            )
        return threshold
