"""Writes what the pages include: `docs/_generated/`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fastact

from . import accuracy, families, pages, performance

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ("circles", "dead_units")


def everything(folder: Path) -> None:
    """Writes all of it; the kernels of fastact answer, tiny tensors included."""
    folder.mkdir(exist_ok=True)
    compiled = next(b for b in fastact.backends() if b.name == "compiled")
    with fastact.backend("compiled" if compiled.available else "auto"):
        for page in families.PAGES:
            (folder / f"{page}.md").write_text(pages.family(page, folder))
        (folder / "gated.md").write_text(pages.gated(folder))
        (folder / "functional.md").write_text(pages.api())
        (folder / "losses.md").write_text(pages.losses(folder))
    (folder / "accuracy.md").write_text(accuracy.page(ROOT / "docs/data/accuracy.json"))
    sources = sorted((ROOT / "benchmarks/results").glob("*.json"))
    (folder / "performance.md").write_text(performance.page(sources, folder))
    for example in EXAMPLES:
        run(example, folder)


def run(example: str, folder: Path) -> None:
    """Draws an example's pictures, unless they are newer than the examples."""
    script = ROOT / "examples" / f"{example}.py"
    stamp = folder / f".{example}"
    newest = max(path.stat().st_mtime for path in script.parent.glob("*.py"))
    if stamp.exists() and stamp.stat().st_mtime > newest:
        return
    subprocess.run([sys.executable, script, "--out", folder], check=True, stdout=subprocess.DEVNULL)
    stamp.touch()
