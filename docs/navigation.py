"""The pages of checkpoints stand in the navigation, whichever there are."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List ``checkpoints/*.md`` after the overview of the model zoo."""
    (zoo,) = (part["Model zoo"] for part in config.nav or () if "Model zoo" in part)
    pages = sorted(Path(config.docs_dir, "checkpoints").glob("*.md"))
    zoo += [{page.stem: f"checkpoints/{page.name}"} for page in pages]
    return config
