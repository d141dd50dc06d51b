"""Files of Hugging Face Hub repositories, through the official client and its cache.

The client's cache, tokens, progress bars and ``HF_*`` variables hold. A file that the cache has is
taken from there, without a request: what was loaded yesterday is loaded today, whatever a branch
has become meanwhile, until it is refreshed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pylon_zoo import __version__
from pylon_zoo.errors import (
    DownloadError,
    HubAccessError,
    InvalidOptionError,
    PylonZooError,
    WeightsNotFoundError,
)

__all__ = ["client_options", "discard", "explain", "fetch_file", "is_offline", "split_reference"]

logger = logging.getLogger("pylon_zoo")

_REFERENCE = re.compile(
    r"(?!.*(--|\.\.))(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?"
)


def split_reference(reference: str) -> tuple[str, str | None]:
    """``"org/repo@revision"`` -> (``"org/repo"``, ``"revision"``), or (..., None) without one.

    Raises:
        InvalidOptionError: it is not of this form.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InvalidOptionError(
            f"{reference!r} is no repository of the Hub; write org/repo or org/repo@revision, "
            f"where the revision is a branch, a tag or a commit."
        )
    return match["repo"], match["revision"]


def client_options() -> dict[str, Any]:
    """``endpoint`` and ``cache_dir`` for the client, from the environment as it is now.

    The client itself reads its environment once, when it is imported, which is too early for a
    notebook that sets ``HF_ENDPOINT``.
    """
    home = os.environ.get("HF_HOME")
    cache = os.environ.get("HF_HUB_CACHE") or (os.path.join(home, "hub") if home else None)  # noqa: PTH118
    return {
        "endpoint": os.environ.get("HF_ENDPOINT", "").rstrip("/") or None,
        "cache_dir": os.path.expanduser(os.path.expandvars(cache)) if cache else None,  # noqa: PTH111
    }


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` is set, now or when the client was imported."""
    from huggingface_hub import constants

    now = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    return now or bool(constants.HF_HUB_OFFLINE)


def fetch_file(
    repo_id: str,
    filename: str,
    revision: str | None,
    *,
    refresh: bool = False,
    force: bool = False,
    local_only: bool = False,
) -> Path:
    """The path of a repository's file in the cache, downloaded if the cache has none.

    Args:
        repo_id: ``org/repo``.
        filename: path within the repository.
        revision: branch, tag or commit; None means ``main``.
        refresh: ask the Hub what the revision is now, and fall back to the cached file, with a
            warning, if that fails.
        force: download even what the cache has.
        local_only: make no request.

    Raises:
        WeightsNotFoundError: no such repository, revision or file; or it is not in the cache and
            ``HF_HUB_OFFLINE`` is set.
        HubAccessError: the Hub refuses access.
        DownloadError: the Hub cannot be reached or does not answer properly.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import LocalEntryNotFoundError

    options = {
        "repo_id": repo_id,
        "filename": filename,
        "revision": revision,
        "library_name": "pylon_zoo",
        "library_version": __version__,
        **client_options(),
    }
    cached = None
    if not force:
        with contextlib.suppress(LocalEntryNotFoundError):
            cached = Path(hf_hub_download(**options, local_files_only=True))
        if cached and (not refresh or local_only or is_offline()):
            return cached
    what = f"{filename} of {repo_id}" + (f"@{revision}" if revision else "")
    if local_only:
        raise WeightsNotFoundError(
            f"{what} is not in the cache {_cache()}. Get it with `pylon-zoo weights download`."
        )
    if is_offline():
        raise WeightsNotFoundError(
            f"{what} is not in the cache {_cache()}, and HF_HUB_OFFLINE is set. Unset it to "
            f"download the file; or, where there is no network, copy the cache of a machine that "
            f"has it, or the folder that `pylon-zoo weights download ... --to FOLDER` writes "
            f"there, and load that folder by its path."
        )
    try:
        if refresh:
            # The client would use its cache in silence where the Hub fails; who asks what is new
            # shall hear of it.
            url = hf_hub_url(repo_id, filename, revision=revision, endpoint=options["endpoint"])
            get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        return Path(hf_hub_download(**options, force_download=force))
    except (
        Exception
    ) as error:  # the client raises its own errors, its HTTP library's and the system's
        explained = explain(error, what)
        if cached is None:
            raise explained from error
        logger.warning("%s Using the copy in the cache, %s.", explained, cached)
        return cached


def discard(path: Path) -> None:
    """Remove a file from the cache, its blob as well, so that nobody takes it for good."""
    blob = path.resolve()
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


def _cache() -> str:
    from huggingface_hub import constants

    return str(client_options()["cache_dir"] or constants.HF_HUB_CACHE)


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(client_options()["endpoint"] or constants.ENDPOINT)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def explain(error: Exception, what: str) -> PylonZooError:
    """The error of this package that says what an error of the Hub's client means.

    Args:
        error: whatever the client has raised.
        what: was transferred, e.g. ``"config.json of org/repo@main"``.
    """
    from huggingface_hub import errors

    if isinstance(error, PylonZooError):
        return error
    chain = list(_chain(error))
    responses = (getattr(link, "response", None) for link in chain)
    status = next((r.status_code for r in responses if r is not None), None)
    hub = _endpoint()

    def is_a(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    def named(*words: str) -> bool:
        names = [cls.__name__ for link in chain for cls in type(link).__mro__]
        return any(word in name for word in words for name in names)

    if is_a(errors.GatedRepoError) or status in (401, 403):
        return HubAccessError(
            f"{hub} refuses access to {what} ({status}). It does not exist, or is private or "
            f"gated: check the name, ask for access on its page, and log in with `hf auth login` "
            f"or set HF_TOKEN to a token that may {'read' if status == 401 else 'do'} this."
        )
    if is_a(errors.RevisionNotFoundError):
        return WeightsNotFoundError(
            f"{what}: {hub} has the repository, but not this revision. Check the branch, tag or "
            f"commit; without @revision the main branch is taken."
        )
    if is_a(errors.RepositoryNotFoundError):
        return WeightsNotFoundError(
            f"{what}: {hub} has no such repository. Check its name; if it is private, log in with "
            f"`hf auth login` or set HF_TOKEN."
        )
    if status == 404:
        return WeightsNotFoundError(
            f"{what}: {hub} has the repository, but no such file. A checkpoint of pylon_zoo has "
            f"config.json and model.safetensors."
        )
    if status == 429:
        return DownloadError(
            f"{what}: {hub} answers that it was asked too often (429). Wait a few minutes; users "
            f"that are logged in (`hf auth login`) may ask more often."
        )
    if status is not None and status >= 500:
        return DownloadError(
            f"{what}: {hub} has a fault of its own ({status}). Try again later, or set "
            f"HF_ENDPOINT to a mirror."
        )
    if named("Timeout"):
        return DownloadError(
            f"{what}: {hub} did not answer in time. Try again, or give it more seconds with "
            f"HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT."
        )
    if named("TooManyRedirects", "RecursionError"):  # the latter from clients before 1.0
        return DownloadError(
            f"{what}: {hub} redirects in a circle. Check HF_ENDPOINT and your proxy settings."
        )
    if named("ConnectError", "ConnectionError", "ConnectionRefusedError"):
        return DownloadError(
            f"{what}: {hub} cannot be reached. Check the network, HF_ENDPOINT and your proxy "
            f"settings."
        )
    disk = next((e for e in chain if isinstance(e, OSError) and e.errno in _DISK_FAULTS), None)
    if disk is not None:
        return DownloadError(
            f"{what} cannot be written to the cache {_cache()}: {disk.strerror}. Make room there, "
            f"or set HF_HOME to another folder."
        )
    return DownloadError(
        f"{what}: the transfer broke off ({type(chain[-1]).__name__}: {chain[-1]}; {hub}). "
        f"Nothing of it was kept; try again."
    )


_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
