"""What CI services read: the builds as a GitHub matrix, a GitLab child pipeline, a Jenkins script.

The project's own pipeline files (``ci/github.yml``, ``ci/gitlab.yml``) are written here too, so
that they and the matrix cannot disagree; ``ci/pipelines`` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from uniscale_build.manifests.model import ANY_PYTHON
from uniscale_build.matrix.rows import MatrixSettings, Row

# Without it, a child of a merge request's pipeline would have no jobs.
_GITLAB_ALWAYS = {"rules": [{"when": "always"}]}
FORMATS = ("github", "gitlab", "jenkins", "names")
_HEADER = """\
# Written by ci/pipelines from [tool.uniscale.matrix] of pyproject.toml: change that, not this file.
{about}
"""
_INSTALL = "python -m pip install '.[build]'"
_PUBLISH = "uniscale-build index dist/*.whl --out site"
_GITHUB_ABOUT = """\
# GitHub reads it as .github/workflows/wheels.yml. What is built is decided while it runs: what a
# change affects, or what was asked for by hand."""
_GITLAB_ABOUT = """\
# GitLab reads it where Settings, CI/CD, configuration file says ci/gitlab.yml. What is built is
# decided while it runs: what a change affects, or what the variable BUILDS names."""


def render(rows: Sequence[Row], form: str, settings: MatrixSettings) -> str:
    """The rows in one of `FORMATS`, ending in a newline."""
    if form == "github":
        return github(rows, settings)
    if form == "gitlab":
        return gitlab(rows, settings)
    if form == "jenkins":
        return jenkins(rows)
    return "".join(f"{row.id}\n" for row in rows)


def python_version(row: Row, settings: MatrixSettings) -> str:
    """The Python to set up for a row."""
    return settings.pythons[-1] if row.python == ANY_PYTHON else row.python


def github(rows: Sequence[Row], settings: MatrixSettings) -> str:
    """Two lines for ``$GITHUB_OUTPUT``: ``count``, and ``matrix`` for ``fromJSON``."""
    include = [
        {
            "id": row.id,
            "pair": row.pair,
            "runner": list(row.runner) if len(row.runner) > 1 else row.runner[0],
            "image": row.image,
            "python": python_version(row, settings),
            "digest": row.digest[:16],
        }
        for row in rows
    ]
    matrix = json.dumps({"include": include}, separators=(",", ":"))
    return f"count={len(rows)}\nmatrix={matrix}\n"


def gitlab(rows: Sequence[Row], settings: MatrixSettings) -> str:
    """A child pipeline: a job for each row (one that says so where there is none), then the index.

    A child's wheels are its own artifacts, so the job that publishes them is in it too.
    """
    jobs: dict[str, object] = {}
    for row in rows:
        jobs[row.id] = {
            "stage": "build",
            "image": row.image or f"python:{python_version(row, settings)}",
            "tags": list(row.runner) if row.sdk and not row.image else [row.platform],
            "variables": {"UNISCALE_CACHE": "$CI_PROJECT_DIR/.uniscale-cache"},
            "cache": {"key": row.pair, "paths": [".uniscale-cache/"]},
            "script": [_INSTALL, f"uniscale-build matrix --run --only {row.id} --out dist"],
            "artifacts": {"when": "always", "paths": ["dist/"]},
        }
    if not rows:
        jobs["nothing-to-build"] = {"stage": "build", "script": ["echo no build is affected"]}
        return _yaml({"stages": ["build"], "workflow": _GITLAB_ALWAYS, **jobs})
    jobs["publish"] = {
        "stage": "publish",
        "image": f"python:{settings.pythons[-1]}",
        "rules": [{"if": "$CI_MERGE_REQUEST_ID", "when": "never"}, {"when": "on_success"}],
        "script": [_INSTALL, _PUBLISH],
        "artifacts": {"paths": ["site/"]},
    }
    return _yaml({"stages": ["build", "publish"], "workflow": _GITLAB_ALWAYS, **jobs})


def jenkins(rows: Sequence[Row]) -> str:
    """A Groovy script for ``load``: gives a closure for each row, for ``parallel``."""
    lines = ["// A closure for each build; in a Jenkinsfile: parallel load('builds.groovy')",
             "def builds = [:]"]  # fmt: skip
    for row in rows:
        label = " && ".join(word.replace("-", "_") if word == row.platform else word
                            for word in (row.runner if row.sdk and not row.image
                                         else (row.platform,)))  # fmt: skip
        commands = [_INSTALL.replace("'", '"'),
                    f"uniscale-build matrix --run --only {row.id} --out dist"]  # fmt: skip
        steps = ["checkout scm", *(f"sh '{word}'" for word in commands),
                 "archiveArtifacts artifacts: 'dist/**'"]  # fmt: skip
        if row.image:
            inner = "; ".join(steps[1:-1])
            steps[1:-1] = [f"docker.image('{row.image}').inside {{ {inner} }}"]
        body = "\n".join(f"        {step}" for step in steps)
        lines.append(f"builds['{row.id}'] = {{\n    node('{label}') {{\n{body}\n    }}\n}}")
    return "\n".join([*lines, "return builds"]) + "\n"


def files(settings: MatrixSettings) -> dict[str, str]:
    """Path in the project → text, of the pipeline files that it keeps."""
    return {
        "ci/github.yml": _HEADER.format(about=_GITHUB_ABOUT) + _yaml(_github_workflow(settings)),
        "ci/gitlab.yml": _HEADER.format(about=_GITLAB_ABOUT) + _yaml(_gitlab_pipeline(settings)),
    }


def _github_workflow(settings: MatrixSettings) -> dict[str, object]:
    checkout = {"uses": "actions/checkout@v4"}
    plan = (
        'uniscale-build matrix ${ONLY:+--only "$ONLY"} ${BASE:+--changed-since "$BASE"} '
        '--format github >> "$GITHUB_OUTPUT"'
    )
    return {
        "name": "wheels",
        "on": {
            "push": {"branches": ["main"]},
            "pull_request": {},
            "workflow_dispatch": {
                "inputs": {
                    "only": {
                        "description": "builds, such as vllm-*_MLU or {vllm,sglang}-cpu",
                        "required": True,
                        "default": "*-cpu",
                        "type": "string",
                    }
                }
            },
        },
        "permissions": {"contents": "read"},
        "concurrency": {"group": "wheels-${{ github.ref }}", "cancel-in-progress": True},
        "jobs": {
            "plan": {
                "runs-on": settings.runners["linux_x86_64"],
                "timeout-minutes": 10,
                "outputs": {
                    "count": "${{ steps.plan.outputs.count }}",
                    "matrix": "${{ steps.plan.outputs.matrix }}",
                },
                "steps": [
                    {**checkout, "with": {"fetch-depth": 0}},
                    {"uses": "actions/setup-python@v5",
                     "with": {"python-version": settings.pythons[-1]}},
                    {"run": _INSTALL},
                    {
                        "id": "plan",
                        # Through the environment: nothing that a person typed is a command.
                        "env": {
                            "ONLY": "${{ inputs.only }}",
                            "BASE": "${{ github.event_name != 'workflow_dispatch' && "
                            "(github.event.pull_request.base.sha || github.event.before) || '' }}",
                        },
                        "run": plan,
                    },
                ],
            },
            "build": _github_build(checkout),
            "publish": _github_publish(checkout, settings),
        },
    }  # fmt: skip


def _github_build(checkout: dict[str, str]) -> dict[str, object]:
    cache = {"path": ".uniscale-cache", "key": "${{ matrix.id }}-${{ matrix.digest }}",
             "restore-keys": "${{ matrix.id }}-"}  # fmt: skip
    return {
        "needs": "plan",
        "if": "needs.plan.outputs.count != '0'",
        "strategy": {
            "fail-fast": False,
            "matrix": "${{ fromJSON(needs.plan.outputs.matrix) }}",
        },
        "name": "${{ matrix.id }}",
        "runs-on": "${{ matrix.runner }}",
        "container": "${{ matrix.image }}",
        "timeout-minutes": 350,
        "env": {"UNISCALE_CACHE": "${{ github.workspace }}/.uniscale-cache"},
        "steps": [
            checkout,
            {"uses": "actions/setup-python@v5", "with": {"python-version": "${{ matrix.python }}"}},
            {"uses": "actions/cache@v4", "with": cache},
            {"run": _INSTALL},
            {
                "env": {"BUILD": "${{ matrix.id }}"},
                "run": 'uniscale-build matrix --run --only "$BUILD" --out dist',
            },
            {
                "if": "always()",
                "uses": "actions/upload-artifact@v4",
                "with": {"name": "${{ matrix.id }}", "path": "dist"},
            },
        ],
    }


def _github_publish(checkout: dict[str, str], settings: MatrixSettings) -> dict[str, object]:
    return {
        "needs": "build",
        "if": "github.event_name != 'pull_request'",
        "runs-on": settings.runners["linux_x86_64"],
        "timeout-minutes": 30,
        "steps": [
            checkout,
            {"uses": "actions/setup-python@v5", "with": {"python-version": settings.pythons[-1]}},
            {"uses": "actions/download-artifact@v4",
             "with": {"path": "dist", "merge-multiple": True}},
            {"run": _INSTALL},
            {"run": _PUBLISH},
            {"uses": "actions/upload-artifact@v4", "with": {"name": "site", "path": "site"}},
        ],
    }  # fmt: skip


def _gitlab_pipeline(settings: MatrixSettings) -> dict[str, object]:
    return {
        "stages": ["plan", "build"],
        "plan": {
            "stage": "plan",
            "image": f"python:{settings.pythons[-1]}",
            "variables": {"GIT_DEPTH": "0"},
            "rules": [
                {
                    "if": "$BUILDS",
                    "variables": {"SELECT": "--only=$BUILDS"},
                },
                {
                    "if": '$CI_PIPELINE_SOURCE == "merge_request_event"',
                    "variables": {"SELECT": "--changed-since=$CI_MERGE_REQUEST_DIFF_BASE_SHA"},
                },
                {
                    "if": "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH",
                    "variables": {"SELECT": "--changed-since=$CI_COMMIT_BEFORE_SHA"},
                },
            ],
            "script": [
                _INSTALL,
                'uniscale-build matrix "$SELECT" --format gitlab > builds.yml',
            ],
            "artifacts": {"paths": ["builds.yml"]},
        },
        "build": {
            "stage": "build",
            "needs": ["plan"],
            "rules": [
                {"if": "$BUILDS"},
                {"if": '$CI_PIPELINE_SOURCE == "merge_request_event"'},
                {"if": "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH"},
            ],
            "trigger": {
                "include": [{"artifact": "builds.yml", "job": "plan"}],
                "strategy": "depend",
            },
        },
    }


def _yaml(data: object) -> str:
    import yaml

    class Plain(yaml.SafeDumper):
        """Without anchors: not every reader of CI files takes them."""

        def ignore_aliases(self, data: object) -> bool:
            """Never."""
            return True

    text: str = yaml.dump(data, Dumper=Plain, sort_keys=False, width=100, allow_unicode=True)
    return text
