"""What was found in files, kept from one start to the next: a plan reads hundreds of them, and few have changed."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from star1.records import write_text

# A younger file could change again without a new stamp.
RACY_S = 2.0


class Stamped:
    """Findings by path, each valid as long as the file has its size, modification time and inode.

    A file is looked at once in the life of this object.

    Args:
        path: where findings are kept, a JSON file.
        root: folder that relative paths start from; the working directory if not given.
    """

    def __init__(self, path: Path, root: Path = Path()) -> None:
        self.path, self.root = path, root
        try:
            self.known: dict[str, list[Any]] = json.loads(path.read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            self.known = {}
        self.changed = False
        self._seen: dict[str, Any] = {}

    def of(self, name: str, find: Callable[[Path], Any]) -> Any:
        """What `find` gives for a file, something that JSON can hold; None when the file is not there."""
        if name not in self._seen:
            self._seen[name] = self.now(name, find)
        return self._seen[name]

    def now(self, name: str, find: Callable[[Path], Any]) -> Any:
        """As `of`, with another look at a file that was looked at before."""
        path = self.root / name
        try:
            stat = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        kept = self.known.get(name)
        if kept and kept[:3] == stamp:
            return kept[3]
        found = find(path)
        if time.time() - stat.st_mtime > RACY_S:
            self.known[name] = [*stamp, found]
            self.changed = True
        return found

    def save(self) -> None:
        """Keep what was learnt for the next start."""
        if self.changed:
            write_text(self.path, json.dumps(self.known))
            self.changed = False
