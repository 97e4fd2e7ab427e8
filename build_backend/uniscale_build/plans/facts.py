"""What of pins and recipes decides the result of a build, for people, scripts and hashing."""

from __future__ import annotations

from uniscale_build.manifests.model import Pin, Recipe


def pin_facts(pin: Pin) -> dict[str, object]:
    """The exact source, and where its bytes may come from."""
    return {
        "version": pin.version,
        "commit": pin.commit,
        "tree": pin.tree,
        "origins": [origin.describe() for origin in pin.origins],
    }


def toolkit_facts(recipe: Recipe) -> dict[str, object]:
    """The pinned wheels that stand in for what an SDK lacks; nothing for recipes without."""
    if not recipe.toolkit:
        return {}
    return {
        "toolkit": [
            {
                "project": kit.project,
                "unless": kit.unless,
                "strip": kit.strip,
                "members": list(kit.members),
                "sha256": {item.file: item.sha256 for item in kit.files},
                "defines": dict(sorted(kit.defines.items())),
                "environment": dict(sorted(kit.environment.items())),
            }
            for kit in recipe.toolkit
        ]
    }


def python_facts(recipe: Recipe) -> dict[str, object]:
    """What only the recipes of Python projects say; nothing for the others."""
    if not recipe.python:
        return {}
    facts: dict[str, object] = {"build_requires": list(recipe.build_requires)}
    if recipe.precompiled is not None:
        facts["precompiled"] = {
            "project": recipe.precompiled.project,
            "members": list(recipe.precompiled.members),
            "sha256": {item.file: item.sha256 for item in recipe.precompiled.files},
            "environment": dict(sorted(recipe.precompiled.environment.items())),
            "build_requires": list(recipe.precompiled.build_requires),
        }
    if recipe.from_source is not None:
        given = recipe.from_source
        facts["from_source"] = {
            "sources": [{"name": pin.backend, **pin_facts(pin)} for pin in given.sources],
            "environment": dict(sorted(given.environment.items())),
            "build_requires": list(given.build_requires),
        }
    if recipe.native is not None:
        facts["native"] = {
            "source": recipe.native.source,
            "targets": list(recipe.native.targets),
            "languages": list(recipe.native.languages),
            "defines": dict(sorted(recipe.native.defines.items())),
        }
    return facts
