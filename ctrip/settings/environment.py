"""Reads variables and gathers what is wrong with them, so that one message can name it all."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar

from ctrip.errors import MisconfiguredError
from ctrip.settings.forms import Form

T = TypeVar("T")

SECRETS = frozenset(
    {
        *("DATABASE_URL", "REDIS_URL", "SECRETS_KEY", "SMTP_URL"),
        *("WALLET_XPUB", "WALLET_MNEMONIC", "GAS_KEY", "COINGECKO_API_KEY"),
    }
)
"""Variables whose value is never shown, and that may instead name a file: `…_FILE`."""
_MAX_FILE_BYTES = 64 * 1024


class Environment:
    """The variables of a process and the faults found in them. A variable that is set but empty counts as not set."""

    def __init__(self, variables: Mapping[str, str] | None, *, withheld: Collection[str] = ()) -> None:
        self._variables = dict(os.environ if variables is None else variables)
        self._withheld = withheld
        self._faults: list[str] = []

    def add_defaults(self, path: Path) -> None:
        """Take variables from a `.env` file where the environment has none."""
        if not path.is_file():
            return
        for line in path.read_text().splitlines():
            name, separator, value = line.strip().removeprefix("export ").partition("=")
            if separator and not name.startswith("#"):
                self._variables.setdefault(name.strip(), value.strip().strip("\"'"))

    def fault(self, fault: str) -> None:
        """Note a fault: `NAME: what is wrong; what would be right`."""
        self._faults.append(fault)

    def raise_faults(self) -> None:
        """Raise MisconfiguredError where faults were noted."""
        if self._faults:
            raise MisconfiguredError("cannot start:\n" + "\n".join(f"  - {fault}" for fault in self._faults))

    def text(self, name: str) -> str:
        """Return a variable; a secret may stand in the file that its `…_FILE` form names. Empty where there is none."""
        if name in self._withheld:
            return ""
        direct = self._variables.get(name, "")
        path = self._variables.get(f"{name}_FILE", "") if name in SECRETS else ""
        if not path:
            return direct
        if direct:
            self.fault(f"{name}: is set beside {name}_FILE; set one of them")
        return self._content(f"{name}_FILE", Path(path))

    def value(self, name: str, form: Form[T], default: T, *, required: bool = False) -> T:
        """Return a variable as `form` reads it; the default where it is at fault or, which may be a fault, not set."""
        text = self.text(name)
        if not text:
            if required and not self._variables.get(f"{name}_FILE"):
                self.fault(f"{name}: is missing; {form.right}")
            return default
        try:
            return form.parse(text)
        except ValueError:
            shown = "its value" if name in SECRETS else repr(text[:200])
            self.fault(f"{name}: {shown} is wrong; {form.right}")
            return default

    def _content(self, name: str, path: Path) -> str:
        try:
            if path.stat().st_size > _MAX_FILE_BYTES:
                self.fault(f"{name}: {path} is larger than {_MAX_FILE_BYTES} bytes; it holds the value alone")
                return ""
            text = path.read_text().strip()
        except OSError as error:
            self.fault(f"{name}: cannot read {path}: {error.strerror}; it names a file that holds the value")
            return ""
        except UnicodeDecodeError:
            self.fault(f"{name}: {path} is no text in UTF-8; it holds the value alone")
            return ""
        if not text:
            self.fault(f"{name}: {path} is empty; it holds the value alone")
        return text
