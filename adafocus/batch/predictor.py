"""`VideoPredictor`: labels batches of paths, for the engines that map a class or a function over a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from adafocus import predict
from adafocus.batch.inputs import located
from adafocus.core import plugins as core_plugins
from adafocus.core.outputs import parquet_schema, parquet_table
from adafocus.core.prediction import Prediction, columns, row
from adafocus.data.packets import VideoError


class VideoPredictor:
    """Predicts the videos that a batch of a table names: the class for `map_batches` of Ray Data.

    The network is loaded when it is first used, in the process that uses it. A video has the same bits as from
    `Predictor` with the same arguments, on a CPU whatever else is in its batch. A video that cannot be read gets a row
    with its error.

    Args:
        run: run folder, checkpoint or address, see `adafocus.load`. Each machine must see it.
        overrides: see `adafocus.load`.
        plugins: plug-ins that the network needs, see docs/extending.md.
        top: number of labels and scores of a video; at most the number of classes.
        column: the column of paths. Paths are local or addresses of s3, gs, http and the like.
        root: folder or address that paths start from and may not leave; None: they are taken as they are.
        options: see `adafocus.predict.Predictor`, such as `device` and `early_exit`.

    Raises:
        UserError: from the first batch on, if the network cannot be loaded.
    """

    def __init__(
        self,
        run: str | Path,
        overrides: Sequence[str] = (),
        *,
        plugins: Sequence[str] = (),
        top: int = 5,
        column: str = "path",
        root: str | None = None,
        **options: Any,
    ) -> None:
        self.run, self.overrides, self.column, self.root = str(run), list(overrides), column, root
        self.plugins = list(plugins)
        self._top, self.options = top, options

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "predictor"}

    @cached_property
    def predictor(self) -> predict.Predictor:
        """The predictor, loaded at the first use in this process."""
        core_plugins.load(self.plugins)
        return predict.load(self.run, self.overrides, **self.options)

    @property
    def top(self) -> int:
        """Number of labels of a video."""
        return min(self._top, len(self.predictor.classes))

    @property
    def columns(self) -> dict[str, type]:
        """The columns of the result and their types, see docs/predict.md."""
        return columns(self.top)

    def rows(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        """A row for each path, in their order; `path` is as it was given."""
        found: list[str | Prediction] = []
        for path in paths:
            try:
                found.append(located(path, self.root))
            except VideoError as error:
                found.append(Prediction(str(path), error=str(error)))
        predictions = self.predictor.each([place for place in found if isinstance(place, str)])
        for path, place in zip(paths, found, strict=True):
            prediction = next(predictions) if isinstance(place, str) else place
            yield row(prediction, self.top) | {"path": str(path)}

    def __call__(self, batch: Any) -> Any:
        """Predicts a batch.

        Args:
            batch: a pyarrow table, a pandas data frame, or a dictionary of columns, with the column of paths.

        Returns:
            The same kind with the columns of the batch, but for the paths, and those of the predictions. A dictionary
            has lists.
        """
        schema = parquet_schema(self.columns)
        if isinstance(batch, dict):
            found = parquet_table(list(self.rows([*batch[self.column]])), schema)
            others = {name: values for name, values in batch.items() if name not in (self.column, *schema.names)}
            return {**others, **{name: found[name].to_pylist() for name in schema.names}}
        kept = [name for name in _names(batch) if name not in (self.column, *schema.names)]
        if hasattr(batch, "to_pylist"):
            found = parquet_table(list(self.rows(batch[self.column].to_pylist())), schema)
            for number, name in enumerate(kept):
                found = found.add_column(number, batch.schema.field(name), batch[name])
            return found
        frame = parquet_table(list(self.rows(list(batch[self.column]))), schema).to_pandas()
        frame.index = batch.index
        return batch[kept].join(frame)


def _names(batch: Any) -> list[str]:
    return list(batch.column_names if hasattr(batch, "column_names") else batch.columns)
