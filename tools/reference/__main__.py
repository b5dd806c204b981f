"""``python -m tools.reference``: write the pages."""

from __future__ import annotations

from pathlib import Path

from tools.reference import client_page, instructions_page, settings_page

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "docs/reference/client.md": client_page.page,
    "docs/reference/instructions.md": instructions_page.page,
    "docs/reference/settings.md": settings_page.page,
}


def main() -> None:
    """Write every page."""
    for path, page in PAGES.items():
        (ROOT / path).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
