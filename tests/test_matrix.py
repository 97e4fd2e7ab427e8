"""The list of builds: rows, selectors, what a change affects, what CI services read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from uniscale_build.errors import SettingsError, UniscaleError
from uniscale_build.manifests.model import ANY_PYTHON
from uniscale_build.matrix import pipelines
from uniscale_build.matrix.changed import changed_since
from uniscale_build.matrix.rows import Row, all_rows, read_settings, this_platform
from uniscale_build.matrix.selectors import expand, select, split
from uniscale_build.plans.pairs import all_pairs
from uniscale_build.project import Project, find_project
from uniscale_build.store import Store

from .native import ROOT, Native, make_native, set_layer

OURS = find_project(ROOT)
ROWS = all_rows(OURS)


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Native:
    return make_native(tmp_path_factory.mktemp("matrix"))


def test_every_pair_that_can_be_planned_has_rows_and_no_other() -> None:
    planned = {(pair.backend, pair.device) for pair in all_pairs(OURS)
               if pair.state in ("buildable", "needs-sdk")}  # fmt: skip
    assert {(row.backend, row.device) for row in ROWS} == planned
    assert len({row.id for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.tasks and row.runner and row.platform in row.id
        if row.platform != this_platform():
            assert row.platform in row.obstacle


def test_pure_wheels_are_built_once_and_others_for_every_python() -> None:
    pythons = {row.pair: {r.python for r in ROWS if r.pair == row.pair} for row in ROWS}
    assert pythons["llama.cpp-cpu"] == {ANY_PYTHON} == pythons["Megatron-Energon-cpu"]
    assert pythons["vllm-cpu"] == set(read_settings(OURS).pythons)


def test_a_device_whose_sdk_is_needed_is_built_where_its_label_is() -> None:
    musa = next(row for row in ROWS if row.pair == "llama.cpp-MUSA_S5000")
    assert musa.runner == ("self-hosted", "MUSA_S5000", "linux_x86_64") and musa.sdk
    cpu = next(row for row in ROWS if row.pair == "llama.cpp-cpu")
    assert len(cpu.runner) == 1 and not cpu.sdk


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b c", ["a", "b", "c"]), ("a-{b,c}, d", ["a-{b,c}", "d"]), (" ", []),
        ("{a,{b,c}}", ["{a,{b,c}}"]),
    ],
)  # fmt: skip
def test_commas_and_blanks_separate_but_not_inside_braces(text: str, words: list[str]) -> None:
    assert split(text) == words


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a", ["a"]), ("a{b,c}d", ["abd", "acd"]), ("{a,b}{c,d}", ["ac", "ad", "bc", "bd"]),
        ("x{a,{b,c}}", ["xa", "xb", "xc"]), ("x{,y}", ["x", "xy"]),
    ],
)  # fmt: skip
def test_braces(pattern: str, found: list[str]) -> None:
    assert expand(pattern) == found


@pytest.mark.parametrize("text", ["a{b", "a}b", "{a,b}}", "}{"])
def test_braces_that_do_not_match_are_refused(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        split(text)
    assert caught.value.slug == "bad-selector"


def test_braces_that_explode_are_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        expand("{a,b}" * 20)
    assert caught.value.slug == "bad-selector"


def ids(only: list[str], skip: list[str] | None = None) -> set[str]:
    return {row.pair for row in select(ROWS, only, skip or [], all_pairs(OURS))}


def test_selectors_take_patterns_aliases_and_any_case() -> None:
    assert ids(["llama.cpp-*_S5000"]) == {"llama.cpp-MUSA_S5000"}
    assert ids(["llama_cpp-gpu"]) == {"llama.cpp-nvidia"}
    assert ids(["LLAMA.CPP-MUSA"]) == {"llama.cpp-MUSA_S5000"}
    assert ids(["{vllm,verl}-cpu"]) == {"vllm-cpu", "verl-cpu"}
    assert ids(["vllm"]) == {row.pair for row in ROWS if row.backend == "vllm"}
    assert "vllm-cpu" not in ids([], ["vllm"]) and "verl-cpu" in ids([], ["vllm"])
    one = select(ROWS, ["vllm-cpu-cp312-*"], [], ())
    assert {row.python for row in one} == {"3.12"} and len(one) == 2


@pytest.mark.parametrize(
    ("word", "slug", "hint"),
    [
        ("vlm-cpu", "unknown-build", 'did you mean "vllm-cpu"?'),
        ("vllm-*_C550", "not-ready", "waits for layers"),
        ("nothing-*", "unknown-build", ""),
    ],
)
def test_a_pattern_that_fits_nothing_is_an_error(word: str, slug: str, hint: str) -> None:
    for only, skip in (([word], []), ([], [word])):
        with pytest.raises(UniscaleError) as caught:
            select(ROWS, only, skip, all_pairs(OURS))
        assert caught.value.slug == slug and hint in (caught.value.hint or "")


def git(where: Path, *args: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.invalid"]
    ran = subprocess.run(
        ["git", *who, *args], cwd=where, capture_output=True, text=True, check=True
    )
    return ran.stdout.strip()


@pytest.fixture
def history(native: Native, tmp_path: Path) -> Project:
    """The small project in a folder of a repository, with one commit."""
    root = tmp_path / "repository" / "sub folder"
    shutil.copytree(native.root, root, symlinks=True)
    git(root.parent, "init", "-q")
    git(root.parent, "add", "-A")
    git(root.parent, "commit", "-qm", "first")
    return Project(root, True)


def changes(project: Project, native: Native, revision: str = "HEAD") -> dict[str, list[str]]:
    rows = all_rows(project)
    found = changed_since(project, Store(native.cache), rows, revision, rows)
    return {name.split("-py3")[0]: [c.name for c in what] for name, what in found.why.items()}


def edit(project: Project, name: str, old: str, new: str) -> Project:
    path = project.root / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return Project(project.root, True)


def test_only_what_changes_a_plan_counts(history: Project, native: Native) -> None:
    backend, device = "manifests/backends/mini.yaml", "manifests/devices/cpu.yaml"
    assert changes(history, native) == {}
    # Comments and other files do not touch the result.
    edit(history, "README.md", "uniscale", "UNISCALE")
    edit(history, backend, "title: A small", "# why not\ntitle: A small")
    project = edit(history, device, "vendor: any", "vendor: any  # which")
    assert changes(project, native) == {}
    project = edit(project, backend, "languages: [C]", "languages: [C]\n  defines: {MINI: x}")
    assert changes(project, native) == {"mini-cpu": ["define MINI"]}
    status = git(history.root, "status", "--porcelain")
    assert changes(project, native) and git(history.root, "status", "--porcelain") == status


def test_a_layer_that_changes_is_seen_and_a_committed_change_is_no_longer(
    history: Project, native: Native
) -> None:
    set_layer(Native(history.root, native.upstream, native.cache, native.env), "kindly, hello")
    project = Project(history.root, True)
    assert changes(project, native) == {"mini-cpu": ["layers", "tree", "words"]}
    git(history.root, "commit", "-qam", "second")
    assert changes(project, native) == {}
    assert changes(project, native, "HEAD~1") == {"mini-cpu": ["layers", "tree", "words"]}


def test_new_builds_and_builds_that_are_gone_are_told(history: Project, native: Native) -> None:
    root = history.root
    (root / "manifests/adaptations/cpu/mini.yaml").rename(root / "kept.yaml")
    rows = all_rows(Project(root, True))
    found = changed_since(Project(root, True), Store(native.cache), rows, "HEAD", rows)
    assert rows == [] and [name.split("-py3")[0] for name in found.gone] == ["mini-cpu"]
    git(root, "add", "-A")
    git(root, "commit", "-qm", "without")
    (root / "kept.yaml").rename(root / "manifests/adaptations/cpu/mini.yaml")
    assert changes(Project(root, True), native) == {"mini-cpu": []}


def test_a_revision_that_cannot_be_read_counts_everything_and_says_so(
    history: Project, native: Native
) -> None:
    edit(history, "manifests/devices/cpu.yaml", "title:", "titel:")
    git(history.root, "commit", "-qam", "broken")
    project = edit(history, "manifests/devices/cpu.yaml", "titel:", "title:")
    rows = all_rows(project)
    found = changed_since(project, Store(native.cache), rows, "HEAD", rows)
    assert len(found.rows) == len(rows) and "cannot be read" in found.note
    # The first push of a branch: there is nothing to compare with.
    assert changed_since(project, Store(native.cache), rows, "0" * 40, rows).rows == tuple(rows)


def test_revisions_that_are_not_there(history: Project, native: Native, tmp_path: Path) -> None:
    for word in ("nowhere", "--upload-pack=x", "HEAD:README.md"):
        with pytest.raises(SettingsError) as caught:
            changed_since(history, Store(native.cache), [], word, [])
        assert caught.value.slug == "unknown-revision"
    shutil.copytree(native.root, tmp_path / "plain", symlinks=True)
    with pytest.raises(SettingsError) as caught:
        changed_since(Project(tmp_path / "plain", True), Store(native.cache), [], "HEAD", [])
    assert caught.value.slug == "no-repository"


def matrix(*args: str, code: int = 0) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "uniscale_build", "matrix", *args], cwd=ROOT, check=False,
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={"PYTHONPATH": f"{ROOT / 'build_backend'}", "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
    )  # fmt: skip
    assert ran.returncode == code, ran.stderr
    return ran.stdout if code == 0 else ran.stderr


def test_the_command_line_lists_and_refuses() -> None:
    told = json.loads(matrix("--only", "{vllm,llama.cpp}-cpu", "--skip", "*aarch64", "--json"))
    assert {row["id"] for row in told} >= {"llama.cpp-cpu-py3-linux_x86_64"}
    assert all(len(row["digest"]) == 64 for row in told)
    assert "vllm-cpu-cp312-linux_x86_64" in matrix("--only", "vllm-cpu")
    # A pipe has no width: every line is whole.
    assert re.search(r"aarch64 .*is for linux_aarch64, and this machine is \S+ *$",
                     matrix("--only", "vllm-cpu"), re.MULTILINE)  # fmt: skip
    assert matrix("--task", "train", "--format", "names").count("Megatron-LM-cpu-cp312") == 2
    assert "unknown-build" in matrix("--only", "vlm-cpu", code=2)
    assert "bad-value" in matrix("--format", "travis", code=2)
    assert "unknown-task" in matrix("--task", "sleep", code=2)


def schema_of(name: str) -> dict[str, Any]:
    vendored = pytest.importorskip("check_jsonschema").__path__[0]
    path = Path(vendored) / "builtin_schemas" / "vendor" / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def valid(text: str, service: str) -> dict[str, Any]:
    """``text`` as YAML, checked with the service's own published schema."""
    import jsonschema

    data = yaml.safe_load(text)
    jsonschema.validate(data, schema_of(service))
    found: dict[str, Any] = data
    return found


def test_pipeline_files_are_current() -> None:
    ran = subprocess.run([sys.executable, ROOT / "ci" / "pipelines", "--check"],
                         capture_output=True, text=True, check=False)  # fmt: skip
    assert ran.returncode == 0, f"{ran.stdout}: ci/pipelines writes them"


def scripts(node: object) -> list[str]:
    """Every shell command of a pipeline file."""
    if isinstance(node, dict):
        own: Any = node.get("run", node.get("script", []))
        told = [own] if isinstance(own, str) else [str(word) for word in own]
        return told + [text for value in node.values() for text in scripts(value)]
    if isinstance(node, list):
        return [text for value in node for text in scripts(value)]
    return []


@pytest.mark.parametrize("service", ["github", "gitlab"])
def test_pipeline_files_fit_the_schema_and_their_commands_exist(service: str) -> None:
    import typer.main
    from uniscale_build.cli.app import application

    schema = {"github": "github-workflows", "gitlab": "gitlab-ci"}[service]
    data = valid((ROOT / "ci" / f"{service}.yml").read_text(encoding="utf-8"), schema)
    commands: Any = typer.main.get_command(application())
    used = [text for text in scripts(data) if "uniscale-build" in text]
    assert used
    for text in used:
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        for name, rest in re.findall(r"uniscale-build ([\w-]+)([^>]*)", text):
            known = {word for item in commands.commands[name].params for word in item.opts}
            assert set(re.findall(r"(?<!\w)--[a-z-]+", rest)) <= known


def test_github_reads_a_matrix() -> None:
    some = select(ROWS, ["llama.cpp-{cpu,MUSA_S5000}"], [])
    lines = dict(line.split("=", 1) for line in
                 pipelines.github(some, read_settings(OURS)).splitlines())  # fmt: skip
    jobs = json.loads(lines["matrix"])["include"]
    assert int(lines["count"]) == len(jobs) == len(some)
    by_id = {job["id"]: job for job in jobs}
    assert by_id["llama.cpp-MUSA_S5000-py3-linux_x86_64"]["runner"][0] == "self-hosted"
    assert all(re.fullmatch(r"3\.\d+", job["python"]) for job in jobs)


def test_gitlab_reads_a_child_pipeline_and_one_without_builds() -> None:
    jobs = valid(pipelines.gitlab(ROWS, read_settings(OURS)), "gitlab-ci")
    assert {row.id for row in ROWS} == set(jobs) - {"stages", "workflow", "publish"}
    none = valid(pipelines.gitlab([], read_settings(OURS)), "gitlab-ci")
    assert set(none) == {"stages", "workflow", "nothing-to-build"}


def test_both_services_publish_what_was_built_and_not_of_proposals() -> None:
    child = valid(pipelines.gitlab(ROWS, read_settings(OURS)), "gitlab-ci")
    assert child["stages"] == ["build", "publish"] and child["publish"]["stage"] == "publish"
    assert child["publish"]["rules"][0] == {"if": "$CI_MERGE_REQUEST_ID", "when": "never"}
    github = valid((ROOT / "ci" / "github.yml").read_text(encoding="utf-8"), "github-workflows")
    assert github["jobs"]["publish"]["if"] == "github.event_name != 'pull_request'"
    for commands in (child["publish"]["script"], scripts(github["jobs"]["publish"])):
        assert "uniscale-build index dist/*.whl --out site" in commands
    for row in ROWS:  # what it indexes is what the builds leave
        assert child[row.id]["artifacts"]["paths"] == ["dist/"]
        assert child[row.id]["script"][-1].endswith("--out dist")


def in_image(row: Row) -> Row:
    return Row(**{**vars(row), "image": "registry.example/sdk:1.2"})


def test_an_image_reaches_every_service() -> None:
    musa = in_image(next(row for row in ROWS if row.pair == "llama.cpp-MUSA_S5000"))
    settings = read_settings(OURS)
    assert '"image":"registry.example/sdk:1.2"' in pipelines.github([musa], settings)
    assert valid(pipelines.gitlab([musa], settings), "gitlab-ci")[musa.id]["image"] == musa.image
    assert f"docker.image('{musa.image}').inside" in pipelines.jenkins([musa])


def test_jenkins_reads_a_script() -> None:
    text = pipelines.jenkins(ROWS)
    assert text.count("builds['") == len(ROWS) and text.endswith("return builds\n")
    assert text.count("{") == text.count("}") and text.count("'") % 2 == 0


@pytest.mark.parametrize(
    ("old", "new", "slug"),
    [
        ('pythons = ["3.10"', 'pytons = ["3.10"', "unknown-setting"),
        ('pythons = ["3.10"', 'pythons = ["three"', "bad-value"),
    ],
)
def test_bad_matrix_settings(native: Native, tmp_path: Path, old: str, new: str, slug: str) -> None:
    shutil.copytree(native.root, tmp_path / "p", symlinks=True)
    project = edit(Project(tmp_path / "p", True), "pyproject.toml", old, new)
    with pytest.raises(SettingsError) as caught:
        all_rows(project)
    assert caught.value.slug == slug


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("backends/mini", "languages: [C]", "languages: [C]\n  pythons: [3.1.2]"),
        ("backends/mini", "languages: [C]", "languages: [C]\n  pythons: [any, '3.12']"),
        ("devices/cpu", "label: cpu", "label: cpu\nplatforms: [windows]"),
        ("devices/cpu", "label: cpu", "label: cpu\ncontainer: {image: '--privileged x'}"),
        ("adaptations/cpu/mini", "pin: 1.2.3", "pin: 1.2.3\nimage: 'a b'"),
    ],
)
def test_bad_manifest_words(native: Native, tmp_path: Path, file: str, old: str, new: str) -> None:
    shutil.copytree(native.root, tmp_path / "p", symlinks=True)
    project = edit(Project(tmp_path / "p", True), f"manifests/{file}.yaml", old, new)
    with pytest.raises(UniscaleError) as caught:
        all_rows(project)
    assert file in (caught.value.findings()[0].where or "")
