"""Questions that several tasks of a cluster ask, all of one folder: which shares are done, and that all are.

The last task to finish puts the parts together. It leaves a list of the scans, so that a task that is started again
only after that does not ask its share a second time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jaxvsr.buckets.publishing import alone_in
from jaxvsr.data.data_folder import questions_in
from jaxvsr.data.recipes.generate_questions import settings_key
from jaxvsr.data.recipes.unfinished_questions import asked_file, part_key, parts_folder, stored_key
from jaxvsr.data.recipes.write_questions import QuestionSet
from jaxvsr.data.shards import Shard
from jaxvsr.files import json_sha256, write_text

_LOCK = ".questions.lock"


class SharedQuestions:
    """The questions of one recipe, settings and folder; `shard` is this task's share."""

    def __init__(self, out: Path, asked: QuestionSet, shard: Shard):
        self._out, self._asked, self._shard = out, asked, shard
        self._folder = parts_folder(out, asked.recipe.name)
        self._key = settings_key(asked.settings, asked.scans)

    def are_together(self) -> bool:
        """Whether `questions.jsonl` has the rows of this share's scans as they are now."""
        try:
            record = json.loads(asked_file(self._out, self._asked.recipe.name).read_text(encoding="utf-8"))
            keys, rows = dict(record["keys"]), record["rows"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        share: Sequence[Path] = self._shard.of(self._asked.scans)
        return rows == self._rows() and all(keys.get(scan.name) == part_key(self._key, scan) for scan in share)

    def lacking(self) -> dict[int, int]:
        """The other shares whose scans are not all asked → how many each lacks."""
        return self._shard.lacking(
            self._asked.scans, lambda scan: stored_key(self._folder, scan.name).startswith(f"{self._key} ")
        )

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Around the writing of all rows, which takes the parts away."""
        keys = {scan.name: stored_key(self._folder, scan.name) for scan in self._asked.scans}
        yield
        path = asked_file(self._out, self._asked.recipe.name)
        path.parent.mkdir(exist_ok=True)
        write_text(path, json.dumps({"rows": self._rows(), "keys": keys}))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other task puts parts together inside; it waits for one that does."""
        with alone_in(self._out, _LOCK):
            yield

    def _rows(self) -> str:
        """A digest of the recipe's rows in the folder."""
        own = f"{self._asked.recipe.name}-"
        return json_sha256({row.id: row.to_json() for row in questions_in(self._out) if row.id.startswith(own)})
