"""What later versions bring: known today, so that nobody hunts for a spelling mistake.

Take an entry out here in the change that makes it work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["LATER_KEYS", "LATER_VALUES"]

#: By path (`*` is any index), what to do without the key until then.
LATER_KEYS: Final[Mapping[str, str]] = {
    "admin": "remove it",
    "cache_dir": "remove it; modules are compiled at each start",
    "metrics": "remove it",
    "secrets": "give them in a plugin's config, as ${NAME}",
    "plugins.*.grants": "remove it",
    "plugins.*.insecure": "use path",
    "plugins.*.kv_quota": "remove it",
    "plugins.*.preopens": "remove it",
    "plugins.*.pull_policy": "use path",
    "plugins.*.url": "download the module, and use path",
}

#: By key, the values; one that ends with a colon is the scheme of a URL.
LATER_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "isolation": ("request",),
    "reload": ("watch",),
    "shared_data": ("sqlite:", "redis:", "rediss:"),
}
