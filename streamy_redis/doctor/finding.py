"""Findings: what a check saw, how bad it is, and what to do."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Finding", "Level", "note", "ok", "problem"]


class Level(enum.Enum):
    """How bad a finding is, from harmless to harmful."""

    OK = "ok"
    # Streams work; somebody may want to know.
    NOTE = "note"
    # Events are lost, late or refused until somebody acts.
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Args:
        check: what was looked at, in a word or two.
        level: how bad it is.
        text: what was seen.
        advice: what to do; empty where nothing has to be done.
    """

    check: str
    level: Level
    text: str
    advice: str = ""


def ok(check: str, text: str) -> Finding:
    return Finding(check, Level.OK, text)


def note(check: str, text: str, advice: str = "") -> Finding:
    return Finding(check, Level.NOTE, text, advice)


def problem(check: str, text: str, advice: str) -> Finding:
    return Finding(check, Level.PROBLEM, text, advice)
