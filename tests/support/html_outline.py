"""Reads an HTML page into the few facts that tests ask about."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Outline(HTMLParser):
    """Elements with their attributes and own text, and whether every tag is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.is_balanced = True
        self._open: list[int] = []
        self.feed(page)
        self.close()
        self.is_balanced = self.is_balanced and not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")

    def handle_endtag(self, tag):
        if not self._open or self.elements[self._open.pop()][0] != tag:
            self.is_balanced = False

    def handle_data(self, data):
        for position in self._open:
            self.texts[position] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of each element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def texts_of(self, tag: str) -> list[str]:
        """Text inside each element of a kind, its children's too, blanks as single spaces."""
        pairs = zip(self.elements, self.texts, strict=True)
        return [" ".join(text.split()) for (name, _), text in pairs if name == tag]

    def attributes(self, name: str) -> list[str]:
        """Every value of an attribute."""
        return [of[name] or "" for _, of in self.elements if name in of]
