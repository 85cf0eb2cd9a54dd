"""Text of files in labels, which read Markdown."""


def literal(text: str) -> str:
    """Return a text so that a label shows it as it is, on one line, whatever Markdown or HTML it holds."""
    return "".join(f"\\{c}" if c.isascii() and c.isprintable() and not c.isalnum() and c != " " else c for c in text)
