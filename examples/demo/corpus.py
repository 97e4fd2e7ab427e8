"""Questions and answers: the files in data/, and seeded variations of them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from phrases import (
    OPENINGS_EN,
    OPENINGS_ZH,
    SAME_EN,
    SAME_ZH,
    SMALL_WORDS,
    STRANGE_EN,
    STRANGE_ZH,
    SYSTEM_PROMPTS,
)

DATA = Path(__file__).resolve().parent / "data"

Message = dict[str, str]
Pair = tuple[str, str]

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ONSETS = ("b", "br", "d", "f", "gl", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v", "z")
CODAS = ("", "l", "m", "n", "r", "s", "t", "x")


@dataclass(frozen=True)
class Corpus:
    """The question and answer pairs of data/, and the words for questions that nobody taught."""

    english: tuple[Pair, ...]
    chinese: tuple[Pair, ...]
    unknown: tuple[Pair, ...]
    words_en: tuple[str, ...]
    words_zh: tuple[str, ...]

    def pairs(self) -> Iterator[Pair]:
        """Yield every pair as it is written in the files."""
        yield from self.english
        yield from self.chinese
        yield from self.unknown

    def texts(self) -> Iterator[str]:
        """Yield what the tokenizer learns from: questions, and each answer as often as three.

        Answers repeat for every wording of a question; counted so often, their phrases would
        take the places of the words that people ask with.
        """
        yield from (question for question, _ in self.pairs())
        for answer in dict.fromkeys(answer for _, answer in self.pairs()):
            yield from (answer,) * 3
        yield from (*STRANGE_EN, *STRANGE_ZH, *self.words_en, *self.words_zh)


def read_pairs(path: Path) -> tuple[Pair, ...]:
    """Read one JSONL file of OpenAI messages, one user and one assistant turn each.

    ValueError names file and line of a row of any other shape.
    """
    pairs: list[Pair] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            messages = json.loads(line)["messages"]
            roles = [message["role"] for message in messages]
            question, answer = (message["content"] for message in messages)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}:{number}: not one question and one answer") from error
        if roles != ["user", "assistant"]:
            raise ValueError(f"{path}:{number}: roles are {roles}, not user and assistant")
        pairs.append((question, answer))
    return tuple(pairs)


def load(folder: Path = DATA) -> Corpus:
    """Read the corpus from its folder."""
    words = {
        language: tuple((folder / f"words.{language}.txt").read_text(encoding="utf-8").split())
        for language in ("en", "zh")
    }
    return Corpus(
        english=read_pairs(folder / "english.jsonl"),
        chinese=read_pairs(folder / "chinese.jsonl"),
        unknown=read_pairs(folder / "unknown.jsonl"),
        words_en=words["en"],
        words_zh=words["zh"],
    )


def is_chinese(text: str) -> bool:
    """Tell whether the text holds a CJK ideograph of the basic block."""
    return re.search("[\u4e00-\u9fff]", text) is not None


def invented_word(rng: random.Random) -> str:
    """Make a pronounceable word that is in no dictionary."""
    parts = (
        rng.choice(ONSETS) + rng.choice("aeiou") + rng.choice(CODAS)
        for _ in range(rng.randint(1, 4))
    )
    return "".join(parts)


def strange_question(corpus: Corpus, rng: random.Random) -> Pair:
    """Make a question about something that the corpus does not teach, with the polite answer."""
    chinese = rng.random() < 0.33
    words = corpus.words_zh if chinese else corpus.words_en
    word, other = rng.sample(words, 2)
    if not chinese and rng.random() < 0.35:
        word = invented_word(rng)
    if chinese and rng.random() < 0.35:
        word = "".join(rng.choice(rng.choice(words)) for _ in range(rng.randint(1, 3)))
    template = rng.choice(STRANGE_ZH if chinese else STRANGE_EN)
    article = "an" if word[0] in "aeiou" else "a"
    question = template.format(a=article, w=word, v=other, W=word.capitalize())
    answer = next(a for _, a in corpus.unknown if is_chinese(a) == chinese)
    return question, answer


def misspell(text: str, rng: random.Random) -> str:
    """Drop, double, swap or replace one letter of a text of at least eight characters."""
    places = [i for i, c in enumerate(text[:-1]) if c.lower() in LETTERS]
    if len(text) < 8 or not places:
        return text
    i = rng.choice(places)
    edits = (
        text[:i] + text[i + 1 :],
        text[:i] + text[i] + text[i:],
        text[:i] + text[i + 1] + text[i] + text[i + 2 :],
        text[:i] + rng.choice(LETTERS) + text[i + 1 :],
    )
    return rng.choice(edits)


def reword(question: str, rng: random.Random) -> str:
    """Say the same with another of the SAME phrases, or with one small word left out."""
    if rng.random() < 0.45:
        for phrases in rng.sample(SAME_ZH + SAME_EN, len(SAME_ZH + SAME_EN)):
            found = [
                p for p in phrases if (question.startswith(p) if p[0].isupper() else p in question)
            ]
            if found:
                longest = max(found, key=len)
                question = question.replace(longest, rng.choice(phrases), 1)
                break
    words = question.split()
    if len(words) > 3 and rng.random() < 0.1:
        small = [i for i, word in enumerate(words) if word.lower() in SMALL_WORDS]
        if small:
            del words[rng.choice(small)]
            question = " ".join(words)
    return question


def vary(question: str, rng: random.Random) -> str:
    """Write a question as another person might: words, case, punctuation, a slip."""
    if rng.random() < 0.2:
        return question
    question = reword(question, rng)
    chinese = is_chinese(question)
    if rng.random() < 0.12 and len(question) > 5:
        opening = rng.choice(OPENINGS_ZH if chinese else OPENINGS_EN)
        question = opening + (question if chinese else question[0].lower() + question[1:])
    if rng.random() < 0.25:
        question = question.rstrip("?.!。？！") or question
    elif rng.random() < 0.1:
        question = question.replace("？", "?").replace("。", ".").replace("，", ",")
    if chinese and rng.random() < 0.2:
        question = re.sub("(?<=[\u4e00-\u9fff]) | (?=[\u4e00-\u9fff])", "", question)
    if rng.random() < 0.25:
        question = question.lower()
    elif rng.random() < 0.03:
        question = question.upper()
    if rng.random() < 0.06:
        question += rng.choice(
            [" please", "??", "!", " thanks"] if not chinese else ["??", "呢？", "！", "谢谢"]
        )
    return misspell(question, rng) if rng.random() < 0.12 else question


def conversation(corpus: Corpus, rng: random.Random) -> list[Message]:
    """Draw a conversation of one to four exchanges, at times with a system prompt."""
    messages: list[Message] = []
    if rng.random() < 0.2:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_PROMPTS)})
    for _ in range(rng.choices((1, 2, 3, 4), weights=(12, 5, 2, 1))[0]):
        kind = rng.random()
        if kind < 0.50:
            question, answer = rng.choice(corpus.english)
        elif kind < 0.74:
            question, answer = rng.choice(corpus.chinese)
        elif kind < 0.87:
            question, answer = rng.choice(corpus.unknown)
        else:
            question, answer = strange_question(corpus, rng)
        messages.append({"role": "user", "content": vary(question, rng)})
        messages.append({"role": "assistant", "content": answer})
    return messages
