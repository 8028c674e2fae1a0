"""The user's own experiments, as Hydra finds them: files of a folder, read in bounds and taken for no program."""

import os
from pathlib import Path
from urllib.parse import unquote

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource


class Own(ConfigSource):
    """A folder, whose path is percent-encoded in the search path: any character may stand in it."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self.folder = Path(unquote(self.path))

    @staticmethod
    def scheme() -> str:
        return "ltx"

    def load_config(self, config_path: str) -> ConfigResult:
        from ltx.config.trust import read

        config, package = read(self.folder, self._normalize_file_name(config_path))
        return ConfigResult(self.provider, self.full_path(), config, {"package": package})

    def available(self) -> bool:
        return self.folder.is_dir()

    def is_group(self, config_path: str) -> bool:
        return (self.folder / config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        return (self.folder / self._normalize_file_name(config_path)).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        found: list[str] = []
        for name in os.listdir(self.folder / config_path):
            self._list_add_result(found, os.path.join(config_path, name), name, results_filter)
        return sorted(set(found))
