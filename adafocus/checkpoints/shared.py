"""Sends and fetches shared networks: folders of a few files, local, at an fsspec address, or on the Hugging Face Hub.

Only the .safetensors file of a shared network is read, which cannot run code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from adafocus.core.errors import UserError
from adafocus.core.files import first_line, is_address

WEIGHTS = "model.safetensors"
HUB = "hf://"
__all__ = ["HUB", "WEIGHTS", "fetched", "is_address", "send"]


@contextmanager
def fetched(target: str) -> Iterator[Path]:
    """Downloads the .safetensors file at an address, as a context after which the file may be deleted.

    Raises:
        UserError: the file cannot be downloaded, or a package is missing.
    """
    with TemporaryDirectory() as place:
        if target.startswith(HUB):
            yield _from_hub(target)
            return
        path = Path(place) / WEIGHTS
        with _failing(target, "read"):
            import fsspec

            system, root = fsspec.core.url_to_fs(target)
            system.get_file(f"{root.rstrip('/')}/{WEIGHTS}", str(path))
        yield path


def send(files: Sequence[Path], target: str, *, public: bool = False) -> None:
    """Copies files to an address; files of the same names there are replaced.

    Args:
        files: the files.
        target: an fsspec address, or `hf://owner/name`.
        public: whether a repository that is created on the Hub is public.

    Raises:
        UserError: the files cannot be written, or a package is missing.
    """
    if target.startswith(HUB):
        _to_hub(files, target, public)
        return
    with _failing(target, "written"):
        import fsspec

        system, root = fsspec.core.url_to_fs(target)
        system.makedirs(root, exist_ok=True)
        for path in files:
            system.put_file(str(path), f"{root.rstrip('/')}/{path.name}")


def _repository(target: str) -> tuple[str, str | None]:
    """Returns repository and revision of `hf://owner/name` or `hf://owner/name@revision`."""
    name, _, revision = target.removeprefix(HUB).partition("@")
    if len([part for part in name.split("/") if part]) != 2:
        raise UserError(f"{target}: write hf://owner/name, or hf://owner/name@revision")
    return name, revision or None


def _from_hub(target: str) -> Path:
    name, revision = _repository(target)
    with _failing(target, "read"):
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(repo_id=name, filename=WEIGHTS, revision=revision))


def _to_hub(files: Sequence[Path], target: str, public: bool) -> None:
    name, revision = _repository(target)
    with _failing(target, "written"):
        from huggingface_hub import HfApi

        hub = HfApi()
        hub.create_repo(repo_id=name, private=not public, exist_ok=True)
        folder = files[0].parent
        names = [path.name for path in files]
        hub.upload_folder(repo_id=name, folder_path=str(folder), allow_patterns=names, revision=revision)


@contextmanager
def _failing(target: str, verb: str) -> Iterator[None]:
    """Turns exceptions of storage clients, which have many types, into a `UserError` of one line, as a context."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        extra = 'pip install "adafocus[hub]"' if target.startswith(HUB) else "install the package that fsspec names"
        raise UserError(f"{target} needs another package ({first_line(error)}): {extra}") from error
    except Exception as error:
        raise UserError(f"{target} cannot be {verb} ({type(error).__name__}: {first_line(error)})") from error
