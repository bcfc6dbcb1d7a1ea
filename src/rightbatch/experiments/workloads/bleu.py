"""BLEU of a model's translations, by sacrebleu."""

from collections.abc import Sequence

from rightbatch.errors import InputError


def corpus_bleu(translations: Sequence[str], references: Sequence[str]) -> float:
    """Return the BLEU score of translations, 0 to 100, upper and lower case alike.

    It is sacrebleu's own with its tokeniser 13a, signature
    ``nrefs:1|case:lc|eff:no|tok:13a|smooth:exp``.

    Args:
        translations: One per sentence.
        references: The one right translation of each.

    Raises:
        InputError: sacrebleu is not installed, or the numbers differ or are zero.

    Example:
        >>> round(corpus_bleu(["the cat sat on the mat"], ["The cat sat on a mat"]), 1)
        53.7
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError:
        raise InputError(
            "BLEU needs sacrebleu, which is not installed.",
            "pip install 'rightbatch[data]'",
        ) from None
    if len(translations) != len(references) or not references:
        raise InputError(
            f"BLEU: `translations` and `references` must be as many as each other and "
            f"at least one, got {len(translations)} and {len(references)}."
        )
    # force: our words are joined by spaces, and 13a leaves them as they are.
    bleu = BLEU(lowercase=True, tokenize="13a", force=True)
    return float(bleu.corpus_score(translations, [references]).score)
