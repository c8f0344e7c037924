"""What a review's text is made of: language, words, and personal data to take out.

What belongs here: text in, text or tokens out. What does not: what the words mean (themes.py, complaints.py).
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal

Language = Literal["en", "zh"]

_CJK = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W\d_]+(?:['’][^\W\d_]+)?|\d+|[!?]+")
_IS_CJK = re.compile(rf"[{_CJK}]")
_NEGATOR_WORDS = """
    not no never nothing none cannot can't cant won't wont don't dont doesn't doesnt didn't didnt isn't isnt wasn't wasnt
    couldn't couldnt wouldn't wouldnt shouldn't shouldnt hardly barely without 不 没 無 无 未 别"""
_NEGATORS = frozenset(_NEGATOR_WORDS.split())
NEGATED_WORDS = 3
"""How many words after a negator are marked as negated."""


def language_of(text: str | None, default: Language) -> Language:
    """'zh' where a fifth or more of the letters are Chinese characters; `default` where there are no letters."""
    letters = [letter for letter in text or "" if letter.isalpha()]
    if not letters:
        return default
    return "zh" if sum(bool(_IS_CJK.match(letter)) for letter in letters) * 5 >= len(letters) else "en"


def words(text: str) -> list[str]:
    """Lower-case words; Chinese characters one by one, runs of ! and ? as one mark."""
    return [word[0] if word[0] in "!?" else word.replace("’", "'") for word in _WORD.findall(text.lower())]


def features(text: str) -> list[str]:
    """Terms of the text model: words and pairs of words, negated ones marked, and fragments of 3 to 5 letters within words.

    'not good at all' holds 'not', 'NOT_good' ...: a word after a negator is another word (Das and Chen 2007). Fragments
    make one of spellings and endings.
    """
    marked: list[str] = []
    left = 0
    for word in words(text):
        if word in "!?":
            left = 0
            marked.append(word)
            continue
        marked.append(f"NOT_{word}" if left else word)
        left = NEGATED_WORDS if word in _NEGATORS else max(left - 1, 0)
    terms = list(marked)
    terms += [f"{first} {second}" for first, second in pairwise(marked)]
    for word in marked:
        plain = word.removeprefix("NOT_")
        if len(plain) < 3 or not plain[0].isalpha():
            continue
        padded = f"<{plain}>"
        mark = "~!" if word != plain else "~"
        terms += [mark + padded[start : start + size] for size in (3, 4, 5) for start in range(len(padded) - size + 1)]
    return terms


# --- personal data ----------------------------------------------------------------------------------------------------

_EMAIL = re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")
_LINK = re.compile(r"(?:https?://|www\.)\S+")
_HANDLE = re.compile(r"(?<!\w)@\w{2,}")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,4})?\b")
_DIGITS = re.compile(r"(?<!\w)\+?\(?\d(?:[\s().\-/]*\d){5,}(?!\w)")
_STREET = re.compile(
    r"\b\d{1,5}[a-z]?\s+(?:[A-Z][\w'.-]*\s+){1,3}(?:street|st|road|rd|avenue|ave|lane|ln|drive|dr|court|ct|boulevard|blvd|way|close|place|pl)\b\.?"
    r"|\b[A-Z][\w-]*(?:straße|strasse|str\.|weg|platz|gasse)\s*\d{1,4}[a-z]?\b",
    re.IGNORECASE,
)
_ZH_ADDRESS = re.compile(
    rf"[{_CJK}]{{2,8}}(?:省|市|区|县)[{_CJK}\d]{{2,20}}(?:路|街|道|巷|弄)\d*[号號]?[{_CJK}\d]*?(?=[，。！；,.\s]|$)"
)
_NAMED = re.compile(
    r"\b(my name is|i am called|this is|regards,?|sincerely,?|thanks,?|yours,?|cheers,?|signed,?)[ \t]*\n?[ \t]*"
    r"((?-i:[A-Z][\w'’-]+)(?:[ ](?-i:[A-Z][\w'’.-]*))*)",
    re.IGNORECASE,
)
_TITLED = re.compile(r"\b(Mr|Mrs|Ms|Miss|Dr|Prof)\.?[ ](?:[A-Z][\w'’-]+)(?:[ ][A-Z][\w'’-]+)?")
_ZH_NAMED = re.compile(rf"(我叫|我是|本人)([{_CJK}]{{2,4}})(?=[，。！；,.\s]|$)")


def redact(text: str, known: tuple[str, ...] = ()) -> str:
    """The text without personal data: each piece gives way to what it was, such as [email] or [number].

    Addresses of mail and web, handles, any run of six or more digits (phones, cards, orders), account numbers, streets,
    names after a title, an introduction or a closing, and every text of `known` (ids, names the caller knows of).
    A net with holes: free text can say who someone is in ways no pattern knows, so a person reads what is sent.
    """
    for piece in sorted({piece for piece in known if len(piece) >= 3}, key=lambda piece: (-len(piece), piece)):
        text = re.sub(rf"(?<!\w){re.escape(piece)}(?!\w)", "[id]", text, flags=re.IGNORECASE)
    text = _LINK.sub("[link]", text)
    text = _EMAIL.sub("[email]", text)
    text = _HANDLE.sub("[handle]", text)
    text = _IBAN.sub("[account]", text)
    text = _STREET.sub("[address]", text)
    text = _ZH_ADDRESS.sub("[address]", text)
    text = _DIGITS.sub("[number]", text)
    text = _NAMED.sub(lambda match: f"{match.group(1)} [name]", text)
    text = _ZH_NAMED.sub(r"\1[name]", text)
    return _TITLED.sub(r"\1 [name]", text)
