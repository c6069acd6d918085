"""How Everbill's own commands find the stack that runs on this machine."""

import json
import os
from collections.abc import MutableMapping

from embedded.folder import DataFolder
from embedded.options import data_dir_of


def adopt_running_stack(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Let this process reach the stack of its data folder, if one is up; whether it does.

    Settings already in the environment stand, and with DATABASE_URL among them nothing is taken.
    """
    if environment.get("DATABASE_URL"):
        return False
    try:
        settings = json.loads(DataFolder(data_dir_of(environment)).settings_file.read_text())
    except OSError:
        return False
    for name, value in settings.items():
        environment.setdefault(name, value)
    return True
