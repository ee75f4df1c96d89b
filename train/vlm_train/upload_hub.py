"""A copy of the exported model in a repository of the Hugging Face hub: one commit, so it is whole or not there."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vlm_catalogs.errors import StorageError
from vlm_train.export import EXPORTS

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class HubRepository:
    """A model repository, private where this makes it. HF_TOKEN, HF_ENDPOINT and a login of ``hf`` hold."""

    name: str
    """owner/name, or a name below whoever the token belongs to."""

    def check(self) -> None:
        """As Target: asks who the token belongs to. Raises StorageError."""
        self._ask(lambda api: api.whoami())

    def wants(self, folder: Path, *, is_final: bool) -> bool:
        """As Target: the exported model of a run that ended whole."""
        return is_final and folder.parent.name == EXPORTS

    def send(self, folder: Path) -> str:
        """As Target; a commit without changes where the model is there already. Raises StorageError."""

        def work(api: "HfApi") -> str:
            made = api.create_repo(self.name, private=True, exist_ok=True)
            message = f"{folder.name} of a vlm-mix run"
            api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message=message)
            return made.repo_id

        return self._ask(work)

    def _ask(self, work: Callable[["HfApi"], Answer]) -> Answer:
        """``work``; its errors in our words: a status and a kind, never the server's text."""
        from huggingface_hub import HfApi, errors, utils

        utils.disable_progress_bars()  # type: ignore[attr-defined]
        failures = (OSError, ValueError, errors.HTTPError)  # type: ignore[attr-defined]
        try:
            return work(HfApi())
        except failures as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            said = f"{type(error).__name__}{f' ({status})' if status else ''}"
            raise StorageError(
                f"hub repository {self.name}: {said}; is the hub reached, and does the token of HF_TOKEN, or of "
                "`hf auth login`, write there?"
            ) from error
