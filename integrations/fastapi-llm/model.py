"""A stand-in for a language model: the same prompt always gives the same tokens. Put yours here."""

import asyncio
import os
import random
from collections.abc import AsyncIterator

PAUSE = float(os.environ.get("LLM_PAUSE", "0.01"))  # seconds a token
SENTENCES = (
    "A stream remembers what was said, and in which order.",
    "Each event has its number, and no number is missing.",
    "Whoever comes back says where they were, and reads on from there.",
    "Nothing is told twice.",
    "What was lost is said to be lost.",
    "A second reader begins at the first word, and catches up.",
    "The one who writes need not know who reads.",
    "When the last word is written, everybody hears that it was the last.",
    "So a page may close its eyes, and a worker may die.",
)


def text_of(prompt: str) -> list[str]:
    dice = random.Random(prompt)
    tokens = [f"“{prompt}” — a good question.\n\n"]
    for number in range(1, 61):
        text = dice.choice(SENTENCES) + ("\n\n" if number % 5 == 0 else " ")
        # Tokens are parts of words, as a model's are.
        tokens += [text[i : i + 4] for i in range(0, len(text), 4)]
    return tokens


async def generate(prompt: str) -> AsyncIterator[str]:
    for token in text_of(prompt):
        await asyncio.sleep(PAUSE)
        yield token
