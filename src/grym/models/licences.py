"""What a licence of weights lets a business do, by its name; a hint for people, no legal advice.

Knows nothing about models.
"""

from __future__ import annotations

import re
from typing import Final, Literal

LicenceClass = Literal["permissive", "restricted", "non-commercial", "unknown"]
# In this order: the first that fits.
_CLASSES: Final[tuple[tuple[LicenceClass, str], ...]] = (
    ("non-commercial", r"non-?commercial|\bnc\b|oneway|research[- ]only"),
    ("restricted", r"llama|community|gemma|\brail|openrail|gpl|\bsa\b"),
    ("permissive", r"apache|\bmit\b|\bbsd\b|\bisc\b|cc0|cc[- ]by\b|public domain|unlicense"),
)


def licence_class(licence: str) -> LicenceClass:
    """``permissive``, ``restricted`` (conditions beyond naming the makers), ``non-commercial`` or ``unknown``.

    Example:
        >>> licence_class("Apache-2.0"), licence_class("CC-BY-NC-4.0"), licence_class("Llama 2 Community Licence")
        ('permissive', 'non-commercial', 'restricted')
    """
    return next((kind for kind, pattern in _CLASSES if re.search(pattern, licence.lower())), "unknown")
