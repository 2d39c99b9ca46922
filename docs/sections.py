"""For mkdocstrings: the package's docstrings head their examples with ``Example:``, griffe looks for ``Examples:``."""

import re
from typing import Any

from griffe import Extension, Object


class ExampleSections(Extension):
    """Read ``Example:`` as ``Examples:``."""

    def on_instance(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite the heading before the docstring is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
