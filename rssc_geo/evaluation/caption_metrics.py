"""Similarity of generated captions to human references: BLEU, ROUGE-L, CIDEr-D and CIDEr.

Figures are those of coco-caption (Chen et al., 2015), which papers on RSICD and its kin report, and
are checked against it in the tests. Its ``Cider`` clips counts and penalizes a difference in
length: what it and those papers call CIDEr is CIDEr-D in the words of Vedantam et al. (2015), and
"CIDEr-D" here. Two differences remain: BLEU is exactly 0 where no n-gram is right (there below
1e-3), and the text is split by a pattern rather than by the Stanford tokenizer, so that figures
need no Java. METEOR is left out: it rests on WordNet, a paraphrase table and a search that only its
Java program does exactly.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

_MAX_N = 4
_ROUGE_BETA = 1.2  # the weight of recall, as in coco-caption
_CIDER_SIGMA = 6.0  # words; Vedantam et al., section 5
_TOKEN = re.compile(r"'(?:s|re|ve|ll|d|m)\b|\d+(?:[.,]\d+)+|\w+(?:-\w+)*")

Words = list[str]
Ngram = tuple[str, ...]


def tokenize(text: str) -> Words:
    """Words and numbers in lower case, without punctuation.

    Numbers keep their inner points ("1,000"), words their inner hyphens ("high-rise"), and "'s" and
    its like are words of their own, as coco-caption's tokenizer has them: all but 14 of the 16,266
    captions of AID come out alike.
    """
    return _TOKEN.findall(text.lower())


def caption_scores(written: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Corpus figures of one caption an image against the captions that people wrote for it.

    Parameters
    ----------
    written : one caption an image; it may be empty
    references : the captions of the same images; those without a word are left out

    Returns
    -------
    "BLEU-1" to "BLEU-4" and "ROUGE-L" (0 to 1), "CIDEr-D" and "CIDEr" (0 to 10)
        CIDEr weighs n-grams by their rarity among the images given, so it compares only over the
        same images, and is 0 over a single one.

    Raises ``ValueError`` when there are no images, the two differ in length, or an image has no
    references.
    """
    if not written or len(written) != len(references):
        raise ValueError(
            f"{len(written)} captions for {len(references)} images: needs one for each of at"
            " least one"
        )
    candidates = [tokenize(text) for text in written]
    truths = [[words for words in map(tokenize, texts) if words] for texts in references]
    bare = [place for place, texts in enumerate(truths) if not texts]
    if bare:
        raise ValueError(
            f"{len(bare)} of {len(truths)} images have no references, the first is number {bare[0]}"
        )
    return (
        _bleu(candidates, truths)
        | {"ROUGE-L": _rouge_l(candidates, truths)}
        | _cider(candidates, truths)
    )


def _ngrams(words: Words, n: int) -> Counter[Ngram]:
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def _bleu(candidates: Sequence[Words], truths: Sequence[Sequence[Words]]) -> dict[str, float]:
    """Corpus BLEU (Papineni et al., 2002) by the closest reference length, ties to the shorter."""
    length = sum(map(len, candidates))
    wanted = sum(
        min((abs(len(truth) - len(words)), len(truth)) for truth in texts)[1]
        for words, texts in zip(candidates, truths, strict=True)
    )
    brevity = min(1.0, math.exp(1 - wanted / length)) if length else 0.0
    result, product = {}, 1.0
    for n in range(1, _MAX_N + 1):
        right = total = 0
        for words, texts in zip(candidates, truths, strict=True):
            found, allowed = _ngrams(words, n), Counter[Ngram]()
            for truth in texts:
                allowed |= _ngrams(truth, n)
            right += (found & allowed).total()
            total += found.total()
        product *= right / total if total else 0.0
        result[f"BLEU-{n}"] = brevity * product ** (1 / n)
    return result


def _rouge_l(candidates: Sequence[Words], truths: Sequence[Sequence[Words]]) -> float:
    """Mean F-measure of the longest common subsequence (Lin, 2004).

    The best precision over the references is joined with the best recall.
    """
    total = 0.0
    for words, texts in zip(candidates, truths, strict=True):
        common = [_common_length(words, truth) for truth in texts]
        if any(common):
            precision = max(common) / len(words)
            recall = max(length / len(truth) for length, truth in zip(common, texts, strict=True))
            total += (
                (1 + _ROUGE_BETA**2) * precision * recall / (recall + _ROUGE_BETA**2 * precision)
            )
    return total / len(candidates)


def _common_length(one: Words, other: Words) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        above = row
        row = [0]
        for place, met in enumerate(other):
            row.append(above[place] + 1 if word == met else max(above[place + 1], row[place]))
    return row[-1]


def _cider(candidates: Sequence[Words], truths: Sequence[Sequence[Words]]) -> dict[str, float]:
    """CIDEr-D and CIDEr, both times 10, without stemming (Vedantam et al., 2015)."""
    clipped = plain = 0.0
    for n in range(1, _MAX_N + 1):
        images = [[_ngrams(truth, n) for truth in texts] for texts in truths]
        holders = Counter(ngram for image in images for ngram in set().union(*image))
        for words, texts, image in zip(candidates, truths, images, strict=True):
            mine = _weights(_ngrams(words, n), holders, len(images))
            for truth, counts in zip(texts, image, strict=True):
                theirs = _weights(counts, holders, len(images))
                penalty = math.exp(-((len(words) - len(truth)) ** 2) / (2 * _CIDER_SIGMA**2))
                least = {
                    ngram: min(weight, theirs.get(ngram, 0.0)) for ngram, weight in mine.items()
                }
                # Or 1: a product of 0 stays 0.
                norm = math.sqrt(_dot(mine, mine) * _dot(theirs, theirs)) or 1.0
                clipped += penalty * _dot(least, theirs) / norm / len(texts)
                plain += _dot(mine, theirs) / norm / len(texts)
    scale = 10 / (_MAX_N * len(candidates))
    return {"CIDEr-D": scale * clipped, "CIDEr": scale * plain}


def _weights(counts: Counter[Ngram], holders: Counter[Ngram], images: int) -> dict[Ngram, float]:
    """Counts times the log of how rare the n-gram is among the images (TF-IDF).

    An n-gram that no image holds is weighted as if one did.
    """
    return {
        ngram: count * math.log(images / max(1, holders[ngram])) for ngram, count in counts.items()
    }


def _dot(one: Mapping[Ngram, float], other: Mapping[Ngram, float]) -> float:
    return sum(weight * other[ngram] for ngram, weight in one.items() if ngram in other)
