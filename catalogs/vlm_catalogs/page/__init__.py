"""One self-contained HTML page out of data, a script and a style: what both stages build their reports from.

A page asks nothing of any network and runs no text of its data: the data stand in a JSON block, the scripts put them
into the page as text, and the page's content security policy lets no other script, style or address in.
"""

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

from vlm_catalogs import json_text

POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; base-uri 'none'; form-action 'none'"
)
ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
"""Signs that could end the block of data, spelled as JSON allows; ``json_text.dumps`` leaves no other than ASCII."""
HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<noscript>This page draws itself from the data it holds: allow its script.</noscript>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def page_html(title: str, data: Any, *, scripts: Sequence[str], styles: Sequence[str] = ()) -> str:
    """The page: shared style and helpers, then ``styles`` and ``scripts``, which find the data in ``pageData``."""
    script = "\n".join(['"use strict";', _own("page.js"), *scripts])
    style = "\n".join([_own("page.css"), *styles])
    assert "</script" not in script.lower() and "</style" not in style.lower()
    policy = POLICY.format(script=_source_hash(script), style=_source_hash(style))
    return HTML.format(policy=policy, title=escape(title), style=style, script=script, data=embedded(data))


def embedded(data: Any) -> str:
    """JSON that can stand inside of a script element, whatever its texts say."""
    text = json_text.dumps(data)
    for sign, spelled in ESCAPED.items():
        text = text.replace(sign, spelled)
    return text


def _own(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _source_hash(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
