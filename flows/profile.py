"""The server of the user's active Prefect profile, read without importing Prefect, which takes seconds."""

import os
import tomllib
from pathlib import Path

from agepipe.core.errors import ConfigError


def profile() -> tuple[str, dict[str, str]]:
    """Name and settings of the profile that `prefect profile use` or PREFECT_PROFILE has chosen.

    Without a file of the user's there are no settings: the profiles that Prefect brings are not read.

    Raises:
        ConfigError: the file of the profiles cannot be read.
    """
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "", {}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"PREFECT_PROFILES_PATH: {path} cannot be read ({error}); mend it, or set PREFECT_API_URL to the "
            "address of a server."
        ) from error
    name = str(os.environ.get("PREFECT_PROFILE") or found.get("active", ""))
    values = found.get("profiles", {}).get(name, {})
    return name, {key: str(value) for key, value in values.items()}
