"""Files for secrets: made anew with mode 0600, or not at all."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click


@contextmanager
def new_secret_file(path: Path | None) -> Iterator[Callable[[str], None]]:
    """Make a file that its owner alone can read, before the secret is made, and give what writes into it.

    Without a path nothing is written. The file is taken away again where the block fails. Raises ClickException where
    there is one already: it is never written over.
    """
    if path is None:
        yield lambda _secret: None
        return
    handle = _create(path)
    try:
        with os.fdopen(handle, "w") as file:
            yield lambda secret: print(secret, file=file, flush=True)
            os.fsync(handle)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _create(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise click.ClickException(f"{path} exists already, and is not written over") from error
    except OSError as error:
        raise click.ClickException(f"cannot make {path}: {error.strerror}") from error
