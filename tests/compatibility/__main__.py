"""`python -m tests.compatibility` writes docs/compatibility.md anew."""

from tests.compatibility.page import PAGE, page

PAGE.parent.mkdir(exist_ok=True)
PAGE.write_text(page(), encoding="utf-8")
