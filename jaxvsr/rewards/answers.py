"""Reading an answer from text: tags, announcements, words. Every function accepts any string."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Iterator

_SPACE = re.compile(r"\s+")
_ARTICLE = re.compile(r"^(?:the|an|a)\s+(?=\S)")
_QUOTES = string.punctuation + "\u2018\u2019\u201c\u201d\u2026"

# "the answer is C", "**Answer:** 3", "Final: left", "答案是", "\\boxed{": the answer follows the last of these.
ANNOUNCED = (
    r"(?i:\b(?:final\s+)?answer[\s*_\"'`]*(?:(?:is|would\s+be|should\s+be|must\s+be)\b|[:=])[\s:=*_]*)"
    r"|(?i:\bfinal(?:\s+(?:choice|result|decision))?[*_]*\s*[:=][\s*_]*)"
    r"|答案\s*(?:应该|应|應該|應)?\s*[是为為选選:\uff1a=]*\s*"
    r"|\\f?boxed\s*\{\s*"
)
_ANNOUNCED = re.compile(ANNOUNCED)
_THOUGHTS = "think|thinking|thought|reasoning|observe"
_THOUGHT_TAG = re.compile(rf"<(/?)(?:{_THOUGHTS})>")
_ANY_TAG = re.compile(rf"<\s*(/?)\s*({_THOUGHTS}|answer)\s*>", re.IGNORECASE)
# Other models' tags of a thought: Kimi-VL's, and those of Sky-T1 and OpenThoughts.
_OTHER_TAGS = re.compile(r"\u25c1(/?)think\u25b7|<\|(?:begin|(end))_of_thought\|>")
_CUT_TAG = re.compile(r"</?(?:a|an|ans|answ|answe|answer)?\Z")


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


def after_thought(text: str) -> str:
    """What follows the thought that the chat template opened: all behind the last `</think>`, nothing where there is
    none.

    >>> after_thought("Three or four? I see four.</think>\\n\\n4")
    '4'
    """
    return text.rpartition("</think>")[2].strip() if "</think>" in text else ""


AFTER_THOUGHT = "after_thought"
EXTRACTION: dict[str, Callable[[str], str]] = {
    "plain": _plain,  # the whole completion, untouched
    "answer_tag": _answer_tag,  # the first <answer> pair; the whole completion where there is none
    AFTER_THOUGHT: lambda text: _answer_tag(after_thought(text)),  # the same, of what follows </think>
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


def announced_answer(text: str) -> str:
    """What follows the last "answer is", "Answer:", "Final:", "答案是" or "\\boxed{"; the whole text without any."""
    announced = list(_ANNOUNCED.finditer(text))
    return text[announced[-1].end() :] if announced else text


def final_answer(text: str) -> str:
    """The answer in a completion whose thought is never read: the last `<answer>` pair outside of it that is not empty,
    else what follows the thought, else what stands before it.

    A thought is what `<think>`, `<observe>` and the like enclose, in any case. One that is never closed goes on to the
    end; one that was opened by the prompt ends at its `</think>`. An `<answer>` that is not closed ends with the text.

    >>> final_answer("<think>It goes in <answer> </answer> tags. I count 4.</think> <answer>5</answer>")
    '5'
    >>> final_answer("Three or four? I see four.</think>\\n4")
    '4'
    """
    text = _OTHER_TAGS.sub(lambda tag: "</think>" if tag[1] or tag[2] else "<think>", _CUT_TAG.sub("", text))
    before, after = _outside_of_thoughts(_ANY_TAG.sub(lambda tag: f"<{tag[1]}{tag[2].lower()}>", text))
    outside = f"{before}\n{after}"
    pairs = [outside[start + len("<answer>") : end - len("</answer>")] for start, end in tag_pairs(outside, "answer")]
    for pair in reversed(pairs):
        if answer := _ANY_TAG.sub(" ", pair).strip():
            return answer
    _, opened, rest = after.rpartition("<answer>")
    for part in (rest if opened else "", after, before):
        if answer := _ANY_TAG.sub(" ", part).strip():
            return answer
    return ""


def _outside_of_thoughts(text: str) -> tuple[str, str]:
    """What stands before and between the thoughts, and what follows the last one; without a thought all follows."""
    outside: list[str] = []
    start, inside = 0, False
    for tag in _THOUGHT_TAG.finditer(text):
        closes = bool(tag[1])
        if closes and not inside:  # all before it is a thought, which the prompt or another tag began
            outside.clear()
        elif not inside:
            outside.append(text[start : tag.start()])
        inside, start = not closes, tag.end()
    return "\n".join(outside), "" if inside else text[start:]
