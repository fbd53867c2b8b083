"""Command `jepa push`: upload an exported folder to the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from openjepa.core.arguments import Exported, Repository
from openjepa.core.console import info
from openjepa.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Push:
    """Uploads an exported folder to a repository of the Hugging Face hub. Log in first: hf auth login."""

    folder: Exported  # what jepa export made
    repository: Repository  # NAME/REPOSITORY
    private: bool = False


def push(settings: Push) -> str:
    """Uploads; returns the page's address. Mistake in a sentence where the hub refuses."""
    if not (settings.folder / "README.md").is_file():
        raise UserError(f"{settings.folder} has no model card: push what jepa export made")
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
    except ImportError as error:
        raise UserError("pushing needs an extra: pip install 'openjepa[hf]'") from error
    hub: Any = HfApi(library_name="openjepa")
    try:
        hub.create_repo(settings.repository, private=settings.private, exist_ok=True)
        address = hub.upload_folder(folder_path=str(settings.folder), repo_id=settings.repository)
    except LocalTokenNotFoundError as error:
        raise UserError("the hub wants to know who you are: type hf auth login") from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise UserError(f"the hub refused ({str(error).splitlines()[0]}): check the name, and hf auth login") from error
    info(f"pushed     {address}")
    return str(address)
