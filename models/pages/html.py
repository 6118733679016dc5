"""A page as one HTML file that needs nothing else: style, figures and pictures are inside it."""

import base64
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from models.pages.document import Document


def render_html(document: Document) -> str:
    """The page; everything but the figures, which `canvas` drew, is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["png"] = _data_address
    environment.filters["figure"] = Markup
    environment.filters["unbroken"] = _unbroken
    return environment.get_template("template.html").render(document=document).lstrip()


def _unbroken(text: str) -> Markup:
    """The text, escaped, without line breaks between a number and its percent sign."""
    return Markup(re.sub(r"[\d.]+ %", r"<span>\g<0></span>", str(escape(text))))


def _data_address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
