"""A page as its reader sees it."""

from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """What a reader of a page sees: its tables, lists, paragraphs and captions by heading."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.heading = ""
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: list[tuple[str, str, str]] = []  # heading, tag, text
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []  # every tag that is opened is closed, in order

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.text = ""
        if tag == "tr":
            self.tables.setdefault(self.heading, []).append([])

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        text = " ".join(self.text.replace("\u00a0", " ").split())
        if tag in ("h1", "h2", "h3"):
            self.heading = text
        elif tag in ("td", "th"):
            self.tables[self.heading][-1].append(text)
        if text:
            self.texts.append((self.heading, tag, text))
        self.text = ""

    def said(self, heading: str, tag: str) -> list[str]:
        return [text for own, kind, text in self.texts if (own, kind) == (heading, tag)]
