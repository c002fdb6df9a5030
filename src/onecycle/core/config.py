"""The folders that the library keeps its files in."""

import os
from pathlib import Path


class ListablePath(type(Path())):
    """A path with the lesson's `.ls()`."""

    def ls(self) -> list[Path]:
        """Return the entries of this folder, sorted by name."""
        return sorted(Path(entry) for entry in self.iterdir())


class Config:
    """The library's folders.

    They are in the folder that the environment variable `ONECYCLE_HOME` names, else in the user's data folder (on Linux
    `~/.local/share/onecycle`).

    Example:
        >>> (Config().data_path() / "mnist").ls()
    """

    def home(self) -> Path:
        """Return the folder that holds all others.

        Returns:
            The folder, which need not exist.
        """
        if home := os.environ.get("ONECYCLE_HOME"):
            return Path(home).expanduser()
        from platformdirs import user_data_dir  # only needed without ONECYCLE_HOME

        return Path(user_data_dir("onecycle", appauthor=False))

    def data_path(self) -> ListablePath:
        """Return the folder of data sets.

        Returns:
            The folder, which need not exist; `.ls()` lists it and every folder below it.
        """
        return ListablePath(self.home() / "data")
