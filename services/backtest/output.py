"""The scored events as a Parquet file, which is there only once it is whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from services.backtest.run import Scored
from streams.stores import files


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a new file beside `path`, or what it links to, that takes its place when the block ends well, and is gone
    otherwise.

    Raises OSError where no such file can be.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise OSError(EINVAL, "it is there and is no regular file")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.touch()
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def table(events: files.Events, scored: Scored) -> pa.Table:
    """Return one row an event: id, time (epoch ms), entities, label, scores, decision, model id, every feature."""
    usecase = events.usecase
    columns = {
        "event_id": events.columns[usecase.event_id],
        "event_time": events.columns[usecase.event_time],
        **{stage.key: events.columns[stage.key] for stage in usecase.features.stages},
        "label": events.labels,
        "score": scored.scores,
        "raw_score": scored.raw,
        "decision": usecase.verdicts.decide(scored.features, scored.scores),
        "model_id": _model_ids(scored, len(events)),
    }
    named = dict(zip(usecase.features.names, scored.features.T, strict=True))
    return pa.table({name: pa.array(column) for name, column in (columns | named).items()})


def write(path: Path, rows: pa.Table) -> None:
    """Write `rows` to `path`; raise OSError."""
    pq.write_table(rows, path, compression="zstd")


def _model_ids(scored: Scored, rows: int) -> pa.Array:
    begins, names = zip(*scored.models, strict=True)
    codes = np.repeat(np.arange(len(begins), dtype=np.int32), np.diff([*begins, rows]))
    return pa.DictionaryArray.from_arrays(pa.array(codes), list(names)).cast(pa.string())
