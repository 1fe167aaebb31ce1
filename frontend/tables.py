"""The parser's tables: computed once per machine, then read from the cache as JSON (data, never pickled code)."""

from __future__ import annotations

import hashlib
import json

import lark
from lark.grammar import Rule
from lark.lark import PostLex
from lark.lexer import TerminalDef

from .. import cache


def lalr(grammar: str, postlex: PostLex) -> lark.Lark:
    """An LALR(1) parser with the basic lexer for a text in Lark's notation."""
    key = hashlib.sha256(f"lark {lark.__version__} {grammar}".encode()).hexdigest()
    found = cache.load(key)
    if found is None:
        built = lark.Lark(grammar, parser="lalr", lexer="basic", propagate_positions=True, maybe_placeholders=True)
        data, memo = built.memo_serialize([TerminalDef, Rule])
        found = json.dumps({"data": data, "memo": memo}).encode()
        cache.store(key, found)
    tables = json.loads(found, object_hook=_numbered)
    tables["data"]["options"]["postlex"] = postlex
    return lark.Lark.load(tables)


def _numbered(entry: dict[str, object]) -> dict[str | int, object]:
    """States, tokens and rules are numbers; as keys, JSON made them strings."""
    return {int(k) if k.isdigit() else k: v for k, v in entry.items()}
