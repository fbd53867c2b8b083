"""Command `jepa push`: upload an exported folder to the Hugging Face hub."""

from __future__ import annotations

from typing import Any

from openjepa.cli.settings import Push
from openjepa.core.console import info
from openjepa.core.errors import UserError


def push(settings: Push) -> str:
    """Upload a folder; return the address of its page. Raises UserError if the hub refuses."""
    if not (settings.folder / "README.md").is_file():
        raise UserError(f"{settings.folder} has no model card: give a folder that jepa export wrote")
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
        raise UserError("you are not logged in to the hub: type hf auth login") from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise UserError(
            f"the hub refused ({str(error).splitlines()[0]}): check the repository name and your login (hf auth login)"
        ) from error
    info(f"pushed     {address}")
    return str(address)
