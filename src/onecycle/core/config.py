"""Where the library keeps its files."""

import os
from pathlib import Path


class ListablePath(type(Path())):
    """A path that also has the lesson's `.ls()`."""

    def ls(self) -> list[Path]:
        """What is in this folder, sorted by name."""
        return sorted(Path(entry) for entry in self.iterdir())


class Config:
    """The library's folders.

    They lie under `ONECYCLE_HOME` where that is set, else in the user's data folder (on Linux
    `~/.local/share/onecycle`).
    """

    def home(self) -> Path:
        """The folder that holds everything below."""
        if home := os.environ.get("ONECYCLE_HOME"):
            return Path(home).expanduser()
        from platformdirs import user_data_dir  # only needed without ONECYCLE_HOME

        return Path(user_data_dir("onecycle", appauthor=False))

    def data_path(self) -> ListablePath:
        """The folder of data sets; `Config().data_path() / "mnist"` lists with `.ls()`."""
        return ListablePath(self.home() / "data")
