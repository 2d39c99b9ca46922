"""For mkdocs: pictures drawn by the code that their page shows, while the documentation is built."""

import io
import re
from pathlib import Path
from typing import Any

import matplotlib
from mkdocs.structure.files import File, Files

_PAGES = ("gallery.md", "recurrent-and-attention.md", "train-on-streams.md")
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SETTINGS = {"svg.hashsalt": "gallery", "svg.fonttype": "none", "figure.facecolor": "white"}


def _drawn(page: str, source: str) -> list[tuple[str, bytes]]:
    """Title and picture of the ``figure`` that each block of a page leaves behind; blocks share their names."""
    import torch
    from matplotlib import pyplot

    torch.manual_seed(0)
    names: dict[str, Any] = {}
    found = []
    for block in _BLOCK.findall(source):
        names.pop("figure", None)
        exec(compile(block, page, "exec"), names)
        figure = names.get("figure")
        if figure is None:
            found.append(("", b""))
            continue
        picture = io.BytesIO()
        figure.savefig(picture, format="svg", metadata={"Date": None})
        found.append((figure.axes[0].get_title(), picture.getvalue()))
        pyplot.close(figure)
    return found


def on_files(files: Files, config: Any) -> Files:
    """Draw the pictures, and add them to the site."""
    matplotlib.use("Agg")
    config.extra["pictures"] = {}
    for page in _PAGES:
        with matplotlib.rc_context(_SETTINGS):
            drawn = _drawn(page, (Path(config.docs_dir) / page).read_text())
        config.extra["pictures"][page] = drawn
        for i, (title, picture) in enumerate(drawn):
            if title:
                files.append(File.generated(config, f"{Path(page).stem}/{i}.svg", content=picture))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Put every picture behind the code that drew it."""
    if page.file.src_uri not in _PAGES:
        return markdown
    pictures = iter(enumerate(config.extra["pictures"][page.file.src_uri]))
    folder = Path(page.file.src_uri).stem

    def shown(block: "re.Match[str]") -> str:
        i, (title, _) = next(pictures)
        return block.group(0) + (f"\n\n![{title}]({folder}/{i}.svg)" if title else "")

    return _BLOCK.sub(shown, markdown)
