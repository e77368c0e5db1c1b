"""The letter of the option that a text picks. Every letter is read alike, whatever else it is in a language.

"A" is also an article and "I" a pronoun, so no bare letter counts where such a word could stand: before a lower-case
word that can follow an article ("A chair", and so "B chair" too), unless it is that option's own text.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterator, Sequence

from jaxvsr.rewards.answers import ANNOUNCED, normalise_word, words_match

# "I pick C", "my choice: C", "选 C": the letter follows the last of these or of the other announcements.
_ANNOUNCED = re.compile(
    ANNOUNCED
    + r"|(?i:\b(?:pick(?:ed)?|choos(?:e|ing)|chose|select(?:ed)?|go(?:ing)?\s+(?:with|for))\b[\s:*]*)"
    + r"|(?i:\bchoice[*_]*\s*(?:is\b|[:=])[\s:=]*)"
    + r"|[选選](?!项|項)\s*(?:择|擇)?\s*[是为為:]*\s*"
)
_MARKS = "\"'`*_$\u2018\u2019\u201c\u201d"
_OPENING = rf"(?:[\s{_MARKS}(\[{{<>#:\-\u300c\u300e\u3010\u300a]|\\[a-zA-Z]+(?=\s*\{{)|\\[(\[])*+"
_CLOSING = r")\]}>\u300d\u300f\u3011\u300b"
# A letter at the start, in any brackets: "C", "c)", "(C)", "**C**", "C. sofa", "C - sofa", "$C$".
_FIRST = re.compile(
    rf"{_OPENING}([A-Za-z])(?:"
    rf"[\s{_MARKS}]*+[{_CLOSING}.:,;!\u3002\u3001]"
    rf"|[{_MARKS}]++(?![^\W_])"
    rf"|[ \t]*+(?:$|[\r\n\u2013\u2014]|-+\s)"
    r"|\\[)\]])"
)
# Where the letter was announced a reason may follow it: "the answer is C because", "答案是C因为".
_FIRST_WITH_REASON = re.compile(rf"{_OPENING}([A-Z])(?:\s+(?:because|since|as|given|due|for)\b|(?=[\u2e80-\u9fff]))")
_NO_LETTER = r"[^\W_\u2e80-\uffef]"  # letters and digits, but for those of scripts that have no spaces between words
_ANYWHERE = re.compile(
    rf"[(\[{{<{_MARKS}\u300c\u300e\u3010\u300a](?P<enclosed>[A-Z])[{_CLOSING}{_MARKS}](?!{_NO_LETTER})"
    rf"|(?i:\b(?:option|choice|letter))[\s*]+(?P<option>[A-Za-z])(?!{_NO_LETTER})"
    rf"|(?<!{_NO_LETTER})(?P<bare>[A-Z])(?!{_NO_LETTER})"
)
_LIST_ITEM = re.compile(rf"^[ \t{re.escape('*-(')}]*([A-Za-z])[.):]", re.MULTILINE)
# Words that follow an option's letter, and never an article or the pronoun.
_AFTER_A_LETTER = {
    *("is", "because", "since", "as", "and", "or", "but", "so", "for", "from", "in", "on", "at", "by", "with", "to"),
    *("if", "when", "while", "where", "which", "that", "due", "not", "than", "rather", "instead", "here", "then"),
    *("seems", "appears", "looks", "fits", "matches", "has", "it"),
}
_AFTER_THE_PRONOUN = {"was", "were", "would", "could", "should", "will", "can", "might", "must"}
_LOOK_AHEAD = 200  # characters


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

    Reads what follows the last announcement that has a letter ("answer is", "Answer:", "Final:", "I pick", "\\boxed{",
    "答案是", "选"), else what stands before all of them. In this order: a letter at the start, in any brackets ("C",
    "c)", "(C)", "**C**", "$C$", "C. sofa"); the text of exactly one option, with or without its letter; the only
    letter that is a word of its own ("it must be (B)"). Two letters, and a list of the options, pick none.
    """
    text = unicodedata.normalize("NFKC", text)
    texts = [option_text(option) for option in (options or ())[:26]]
    allowed = string.ascii_uppercase[: len(texts)] if texts else string.ascii_uppercase
    announced = [match.end() for match in _ANNOUNCED.finditer(text)]
    parts = [text[start:end] for start, end in zip([0, *announced], [*announced, len(text)], strict=True)]
    for index, part in reversed(list(enumerate(parts))):
        letters = _letters(part, texts, allowed, announced=index > 0)
        if letters:
            return letters.pop() if len(letters) == 1 else None
    return None


def _letters(part: str, texts: Sequence[str], allowed: str, announced: bool) -> set[str]:
    """The letters that a part of a text could pick, by the first of the rules that finds any."""
    listed = {letter for letter in map(str.upper, _LIST_ITEM.findall(part)) if letter in allowed}
    if len(listed) > 1:
        return listed
    match = _FIRST.match(part) or (_FIRST_WITH_REASON.match(part) if announced else None)
    if match and match[1].upper() in allowed:
        return {match[1].upper()}
    predicted = normalise_word(part)
    named = {
        letter
        for letter, option in zip(allowed, texts, strict=False)
        if predicted and predicted in (normalise_word(option), normalise_word(f"{letter} {option}"))
    }
    return named or set(_free_letters(part, texts, allowed))


def _free_letters(part: str, texts: Sequence[str], allowed: str) -> Iterator[str]:
    for match in _ANYWHERE.finditer(part):
        letter = match[match.lastgroup or 0]
        if letter.upper() not in allowed:
            continue
        behind = part[match.end() : match.end() + _LOOK_AHEAD]
        if match.lastgroup == "enclosed" or (match.lastgroup == "option" and letter.isupper()):
            yield letter
        elif _is_letter_before(behind, letter.upper(), texts, allowed):
            yield letter.upper()


def _is_letter_before(behind: str, letter: str, texts: Sequence[str], allowed: str) -> bool:
    """Whether a bare letter is an option's, by the words behind it."""
    following = behind.lstrip(" \t.-").casefold()
    named = [
        (len(option), other)
        for other, option in zip(allowed, texts, strict=False)
        if option and following.startswith(option.casefold())
    ]
    if named:
        return max(named)[1] == letter  # "sofa chair" is no "sofa"
    if re.match(r"['\u2019.-]\w", behind):  # A's, I'm, U.S., L-shaped
        return False
    word = re.match(r"[ \t]+([^\W_]+)", behind)
    if word is None or not (word[1][0].islower() or word[1][0].isdigit()):
        return True
    return word[1] in _AFTER_A_LETTER or ("I" not in allowed and word[1] in _AFTER_THE_PRONOUN)
