"""The names of policies: the lab's, ids of the Hugging Face hub, folders. A folder has one name wherever one stands."""

import re
from pathlib import Path

from ..support.files import results_root
from ..support.messages import near_names, shown

_PART = r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"(?=.{{3,96}}\Z)(?!.*(?:--|\.\.|\.git\Z)){_PART}/{_PART}", re.ASCII)  # as huggingface_hub checks it


def canonical(policy: str, known: tuple[str, ...]) -> str:
    """The name that a spec keeps: as it is for one of `known` or a hub's id; of a folder its path below the project (what holds
    results/), else from the root. Raises ValueError for what is neither, and for a folder without config.json."""
    if policy in known:
        return policy
    folder = _folder(policy)
    if folder is None and _HUB_ID.fullmatch(policy):
        return policy
    if folder is None or not policy.strip():
        raise ValueError(f"policy={shown(policy)}: no Hugging Face id or folder; {near_names(policy, known)}")
    if not (folder / "config.json").is_file():
        raise ValueError(f"policy={shown(policy)}: the folder has no config.json, so it holds no policy")
    folder, project = folder.resolve(), results_root().parent.resolve()
    if not folder.is_relative_to(project):
        return str(folder)
    name = folder.relative_to(project).as_posix()
    return f"./{name}" if "/" not in name or _HUB_ID.fullmatch(name) else name


def located(policy: str) -> str:
    """What transformers and verl load: an id as it is, a folder's absolute path."""
    folder = _folder(policy)
    return policy if folder is None else str(folder.resolve())


def _folder(policy: str) -> Path | None:
    """Found from here or from the project's folder."""
    tries = (Path(policy), results_root().parent / policy)
    try:
        return next((path for path in tries if path.is_dir()), None)
    except (OSError, ValueError):  # a name that no file can have
        return None
