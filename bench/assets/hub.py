"""Models from the Hugging Face hub: safetensors, configuration and tokenizer of one commit, and no code."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.assets.cache import show_progress
from bench.core.errors import UsageError

_REPOSITORY = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def snapshot(name: str, revision: str | None, patterns: Sequence[str], quiet: bool) -> tuple[Path, str]:
    """Download ``org/name`` into the hub's own cache; returns (directory, commit hash).

    ``revision``: a commit, tag or branch; None for the default branch. Without network a snapshot that is cached
    already serves. Raises UsageError: malformed or unknown name, gated, offline, no disk space.
    """
    if not _REPOSITORY.fullmatch(name):
        raise UsageError(f"'hf:{name}' names no model: write hf:organisation/name.")
    from huggingface_hub import snapshot_download

    bar: dict[str, Any] = {} if show_progress(quiet) else {"tqdm_class": _silent()}
    try:
        found = snapshot_download(
            name, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"], **bar
        )
    except Exception as error:
        # the hub's client lets errors of its HTTP library through, whose package has changed its name before
        if not isinstance(error, OSError) and not type(error).__module__.startswith("httpx"):
            raise
        raise _explained(name, revision, error) from None
    path = Path(str(found))
    if not _COMMIT.fullmatch(path.name):
        raise UsageError(f"hf:{name}: the snapshot {path} is not named by a commit, so its revision is unknown.")
    return path, path.name


def _explained(name: str, revision: str | None, error: Exception) -> UsageError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return UsageError(f"hf:{name} asks its users to log in and accept its terms: do so with 'hf auth login'.")
    if isinstance(error, RevisionNotFoundError):
        return UsageError(f"hf:{name} has no revision '{revision}'.")
    if isinstance(error, RepositoryNotFoundError):
        return UsageError(f"The Hugging Face hub has no model '{name}' that is open to you.")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return UsageError(
            f"There is not enough space in the Hugging Face cache for hf:{name}; free some, or set HF_HOME to a "
            "directory on a larger disk."
        )
    return UsageError(
        f"hf:{name} is not cached and the Hugging Face hub can't be reached ({type(error).__name__}); "
        "check the network, or name a local directory that holds the model."
    )


def _silent() -> type[Any]:
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Silent(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

    return Silent
