"""Reading an answer from text: tags, option letters, words. Every function accepts any string."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Iterator, Sequence

_SPACE = re.compile(r"\s+")
_ARTICLE = re.compile(r"^(?:the|an|a)\s+(?=\S)")
_QUOTES = string.punctuation + "\u2018\u2019\u201c\u201d\u2026"

# "the answer is C", "Answer: 3": the answer follows the last of these.
_ANNOUNCED = re.compile(r"\b(?:final\s+)?answer\s*(?:is|:|=)+\s*:?\s*", re.IGNORECASE)
_LETTER_FIRST = re.compile(r"^[\s\"'`*(\[]*([A-Za-z])(?:[\s\"'`*]*[)\].:,]|[\"'`*\]]*\s*$|\*+)")
_LETTER_ANYWHERE = re.compile(r"(?:\(([A-Z])\)|(?i:\boption)\s+([A-Za-z])\b|\b([B-Z])\b)")


def tag_text(text: str, tag: str = "answer") -> str | None:
    """The stripped text of the first `<tag>…</tag>` pair, or None. Nested pairs end at the first closing tag."""
    for start, end in tag_pairs(text, tag):
        return text[start + len(f"<{tag}>") : end - len(f"</{tag}>")].strip()
    return None


def tag_pairs(text: str, tag: str) -> Iterator[tuple[int, int]]:
    """Start and end of each `<tag>…</tag>`, tags included, in order.

    A regular expression would search for the end of every open tag anew: quadratic time on a rollout of only tags.
    """
    opening, closing, end = f"<{tag}>", f"</{tag}>", 0
    while (start := text.find(opening, end)) >= 0 and (close := text.find(closing, start)) >= 0:
        end = close + len(closing)
        yield start, end


def tagged_completion(tag: str, *, answer: str = ".+?", around: str = r"\s*") -> re.Pattern[str]:
    """The pattern of a whole completion `<tag>…</tag> <answer>…</answer>`: `answer` is what the answer may be, `around`
    what may come before and after. "…" may hold anything, more tags included.
    """
    # The atomic group keeps it linear: what fails after the first </tag> <answer> fails after every later one.
    return re.compile(rf"{around}<{tag}>(?>.*?</{tag}>\s*<answer>){answer}</answer>{around}", re.DOTALL)


def _plain(text: str) -> str:
    return text


def _answer_tag(text: str) -> str:
    answer = tag_text(text)
    return text if answer is None else answer


EXTRACTION: dict[str, Callable[[str], str]] = {
    "plain": _plain,  # the whole completion, untouched
    "answer_tag": _answer_tag,  # the first <answer> pair; the whole completion where there is none
}


def extract_answer(text: str, rule: str = "answer_tag") -> str:
    """The answer in a completion, by a rule of `EXTRACTION` (default: the first <answer> pair, else all of it)."""
    return EXTRACTION[rule](text)


def normalise_word(text: str) -> str:
    """Lower case, single spaces, no punctuation at the ends, no leading article: "The Sofa." -> "sofa"."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = _SPACE.sub(" ", text).strip().strip(_QUOTES + " ")
    return _ARTICLE.sub("", text)


def words_match(prediction: str, answer: str) -> bool:
    """Equal after `normalise_word`. An answer of only punctuation matches nothing but itself."""
    predicted, target = normalise_word(prediction), normalise_word(answer)
    return predicted == target if target else prediction.strip() == answer.strip()


def option_text(option: str) -> str:
    """ "C. trash can" -> "trash can"; an option without a letter stays as it is."""
    return re.sub(r"^\s*[A-Z][.):]\s*", "", option).strip()


def answer_letter(answer: str, options: Sequence[str] | None) -> str | None:
    """The upper-case letter of a true answer written as "C", "C.", "C. sofa" or, with options, "sofa"; else None."""
    match = re.match(r"^\s*\(?([A-Za-z])(?:\s*$|[.):])", answer)
    if match:
        return match[1].upper()
    for index, option in enumerate((options or ())[:26]):
        if words_match(answer, option_text(option)):
            return string.ascii_uppercase[index]
    return None


def choice_letter(text: str, options: Sequence[str] | None = None) -> str | None:
    """The option that `text` picks, as an upper-case letter, or None.

    Reads what follows the last "answer is" or "Answer:", else the whole text. In this order: a letter at the start
    ("C", "c)", "(C)", "**C**", "C. sofa"); the text of exactly one option, with or without its letter; the only letter
    that is a word of its own ("I pick (B)").
    """
    text = announced_answer(text)
    allowed = string.ascii_uppercase[: len(options)] if options else string.ascii_uppercase
    match = _LETTER_FIRST.match(text)
    if match and match[1].upper() in allowed:
        return match[1].upper()
    predicted = normalise_word(text)
    named = {
        letter
        for letter, option in zip(string.ascii_uppercase, options or (), strict=False)
        if predicted
        and predicted in (normalise_word(option_text(option)), normalise_word(f"{letter} {option_text(option)}"))
    }
    free = {next(filter(None, groups)).upper() for groups in _LETTER_ANYWHERE.findall(text)} - {"I"}
    letters = named or {letter for letter in free if letter in allowed}
    return letters.pop() if len(letters) == 1 else None


def announced_answer(text: str) -> str:
    """What follows the last "answer is" or "Answer:", or the whole text."""
    announced = list(_ANNOUNCED.finditer(text))
    return text[announced[-1].end() :] if announced else text
