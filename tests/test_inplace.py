"""``unpatch``: the patched tree in place, and nobody's work lost."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from uniscale_build.errors import StoreError
from uniscale_build.git.db import GitDb
from uniscale_build.inplace.unpatch import _verify
from uniscale_build.store import Store

from tests.conftest import Grow, MakeProject, enter
from tests.upstreams import UPSTREAM, Lab, Link, git, git_upstream, make_lab, snapshot


def edit(lab: Lab, name: str, text: str, device: str | None = None) -> Path:
    """Write one file in place."""
    path = lab.place(device) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _one_layer(base: Path) -> Lab:
    lab = make_lab(base, {**UPSTREAM, ".gitignore": b"*.o\n/out/\n"})
    lab.unpatch()
    edit(lab, "setup.py", "# ours\n")
    edit(lab, "first.py", "1\n")
    lab.new_layer("first")
    return lab


@pytest.fixture
def lab(grow: Grow) -> Lab:
    """A project with one common layer, its tree in place."""
    return grow("one-layer", _one_layer)


def pulled(lab: Lab, *edits: tuple[str, str]) -> None:
    """Change the layer as a colleague's commit does: the in-place tree does not know."""
    away = lab.place().with_name("away")
    lab.place().rename(away)
    lab.unpatch()
    for name, text in edits:
        edit(lab, name, text)
    lab.patch()
    lab.remove_place()
    away.rename(lab.place())


def recover(command: str) -> None:
    """Run the command that a message told the engineer to run."""
    done = subprocess.run(shlex.split(command), capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stderr)


def test_a_tree_to_work_in(lab: Lab) -> None:
    lab.remove_place()
    lab.unpatch()
    assert lab.work_tree() == lab.result("first")
    log = git("log", "--format=%s %(trailers:key=Uniscale-Layer,valueonly)", cwd=lab.place())
    assert log.decode().split("\n")[0] == "The layer first first"
    assert "demo 1.0" in log.decode()
    assert git("diff", "--name-only", "HEAD~1", cwd=lab.place()) == b"first.py\nsetup.py\n"
    assert git("status", "--porcelain", "--ignored", cwd=lab.place()) == b""
    assert git("branch", "--show-current", cwd=lab.place()) == b"uniscale\n"
    assert git("fsck", "--strict", cwd=lab.place()) == b""


def test_same_stack_same_commits(lab: Lab) -> None:
    head = git("rev-parse", "HEAD", cwd=lab.place())
    lab.remove_place()
    lab.unpatch()
    assert git("rev-parse", "HEAD", cwd=lab.place()) == head


def test_anybody_can_commit_there(lab: Lab) -> None:
    """Also where git knows no name: a build machine, a container."""
    edit(lab, "x.py", "x\n")
    env = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    for argv in (["git", "add", "-A"], ["git", "commit", "-q", "-m", "x"]):
        subprocess.run(argv, cwd=lab.place(), env=env, check=True)


def test_unsaved_edits_are_named_and_kept(lab: Lab) -> None:
    edit(lab, "new.py", "x\n")
    edit(lab, "pkg/util.py", "x\n")
    (lab.place() / "first.py").unlink()
    git("add", "new.py", cwd=lab.place())
    pulled(lab, ("second.py", "2\n"))
    before = snapshot(lab.root, skip=())
    for more in ((), ("--check",)):
        ran = lab.run("unpatch", "-b", "demo", *more)
        assert ran.code == 10
        assert "3 unsaved edits: A new.py, D first.py, M pkg/util.py" in ran.err.replace(
            "D first.py, A new.py", "A new.py, D first.py"
        )
        assert "uniscale-build patch --backend demo" in ran.err
    assert snapshot(lab.root, skip=()) == before


def test_discard_can_be_undone(lab: Lab) -> None:
    edit(lab, "staged.py", "x\n")
    git("add", "-A", cwd=lab.place())
    git("commit", "-q", "-m", "committed", cwd=lab.place())
    edit(lab, "pkg/util.py", "x\n")
    edit(lab, "untracked.py", "y\n")
    (lab.place() / "first.py").unlink()
    edited = snapshot(lab.place())
    done = lab.unpatch("--discard", "--json").json
    assert lab.work_tree() == lab.result("first")
    assert git("status", "--porcelain", cwd=lab.place()) == b""
    recover(done["recover"])
    assert snapshot(lab.place()) == edited


def test_merge_keeps_edits_on_new_layers(lab: Lab) -> None:
    edit(lab, "mine.py", "mine\n")
    edit(lab, "pkg/util.py", (lab.place() / "pkg/util.py").read_text() + "mine\n")
    pulled(lab, ("second.py", "2\n"), ("setup.py", "# ours, later\n"))
    refused = lab.run("patch", "-b", "demo")
    assert refused.code == 11 and "unpatch --backend demo --merge" in refused.err
    done = lab.unpatch("--merge", "--json").json
    assert done["merged"]
    assert (lab.place() / "second.py").read_text() == "2\n"
    assert (lab.place() / "mine.py").read_text() == "mine\n"
    status = git("status", "--porcelain", cwd=lab.place()).decode().split("\n")
    assert status == [" M pkg/util.py", "?? mine.py", ""]
    lab.patch()
    assert lab.work_tree() == lab.result("first")


def test_merge_that_conflicts(lab: Lab) -> None:
    edit(lab, "first.py", "mine\n")
    pulled(lab, ("first.py", "theirs\n"))
    before = snapshot(lab.place())
    ran = lab.run("unpatch", "-b", "demo", "--merge")
    assert ran.code == 10 and "do not merge with the new layers in first.py" in ran.err
    assert snapshot(lab.place()) == before


def test_layers_changed_and_no_edits(lab: Lab) -> None:
    """Only what differs is written: an incremental build stays incremental."""
    edit(lab, "x.o", "an object\n")
    times = {p: p.stat().st_mtime_ns for p in lab.place().rglob("*.py")}
    pulled(lab, ("setup.py", "# ours, later\n"), ("second.py", "2\n"))
    ran = lab.run("unpatch", "-b", "demo", "--check")
    assert ran.code == 10 and "is not what pin and layers make" in ran.err
    done = lab.unpatch("--json").json
    assert (done["action"], done["written"], done["removed"]) == ("updated", 2, 0)
    rewritten = {p.name for p, t in times.items() if p.stat().st_mtime_ns != t}
    assert rewritten == {"setup.py"}
    assert (lab.place() / "x.o").read_text() == "an object\n"
    (lab.place() / "x.o").unlink()
    assert lab.work_tree() == lab.result("first")
    assert git("status", "--porcelain", cwd=lab.place()) == b""


def test_own_commits_are_kept(lab: Lab) -> None:
    """Commits that cancel out are no edits, and still findable."""
    edit(lab, "x.py", "x\n")
    git("add", "-A", cwd=lab.place())
    git("commit", "-q", "-m", "there", cwd=lab.place())
    git("revert", "--no-edit", "HEAD", cwd=lab.place())
    head = git("rev-parse", "HEAD", cwd=lab.place()).decode().strip()
    done = lab.unpatch("--json").json
    assert done["action"] == "refreshed"
    assert git("rev-parse", done["kept"], cwd=lab.place()).decode().strip() == head


def test_capture_keeps_own_commits(lab: Lab) -> None:
    edit(lab, "x.py", "x\n")
    git("add", "-A", cwd=lab.place())
    git("commit", "-q", "-m", "mine", cwd=lab.place())
    head = git("rev-parse", "HEAD", cwd=lab.place()).decode().strip()
    done = lab.patch("--json").json
    assert git("rev-parse", done["kept"], cwd=lab.place()).decode().strip() == head


def test_staged_content_that_is_nowhere_else_is_kept(lab: Lab) -> None:
    edit(lab, "x.py", "staged\n")
    git("add", "x.py", cwd=lab.place())
    edit(lab, "x.py", "on disk\n")
    kept = lab.patch("--json").json["kept"]
    assert git("show", f"{kept}:x.py", cwd=lab.place()) == b"staged\n"


def test_not_in_place(lab: Lab) -> None:
    lab.remove_place()
    ran = lab.run("unpatch", "-b", "demo", "--check")
    assert ran.code == 9 and "there is no in-place tree" in ran.err


def test_options_that_exclude_one_another(lab: Lab) -> None:
    assert lab.run("unpatch", "-b", "demo", "--discard", "--merge").code == 2


def test_foreign_folder_in_the_way(make_project: MakeProject) -> None:
    lab = make_project()
    edit(lab, "work.txt", "days of work\n")
    ran = lab.run("unpatch", "-b", "demo")
    assert ran.code == 10 and "holds work.txt" in ran.err
    done = lab.unpatch("--discard", "--json").json
    moved = lab.root / done["recover"].removeprefix("the old folder is ")
    assert (moved / "work.txt").read_text() == "days of work\n"
    assert lab.work_tree() == lab.project.resolve("demo", None)[0].tree


def test_broken_repository_in_the_way(lab: Lab) -> None:
    edit(lab, "work.txt", "days of work\n")
    (lab.place() / ".git/HEAD").unlink()
    ran = lab.run("unpatch", "-b", "demo")
    assert ran.code == 10 and "it is not a git work tree" in ran.err
    assert (lab.place() / "work.txt").exists()


def test_empty_folder_is_used(make_project: MakeProject) -> None:
    lab = make_project()
    lab.place().mkdir(parents=True)
    lab.unpatch()
    assert (lab.place() / "setup.py").is_file()


def test_ignored_files_in_the_way(lab: Lab) -> None:
    """A layer adds what lies there ignored: the engineer's file is not overwritten."""
    mine = edit(lab, "out/file.py", "mine, ignored\n")
    pulled(lab, (".gitignore", "*.o\n"), ("out/file.py", "the layer's\n"))
    ran = lab.run("unpatch", "-b", "demo")
    assert ran.code == 10 and "in the way: out/file.py" in ran.err
    assert mine.read_text() == "mine, ignored\n"
    lab.unpatch("--discard")
    assert mine.read_text() == "the layer's\n"
    (aside,) = (lab.place() / ".git/uniscale-aside").rglob("file.py")
    assert aside.read_text() == "mine, ignored\n"


def test_nothing_is_written_through_links(lab: Lab, tmp_path: Path) -> None:
    """An ignored link where a layer has a folder: the files do not land behind it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (lab.place() / "out").symlink_to(outside)
    git("config", "core.excludesFile", "", cwd=lab.place())
    (lab.place() / ".git/info/exclude").write_text("/out\n")
    pulled(lab, (".gitignore", "*.o\n"), ("out/file.py", "the layer's\n"))
    ran = lab.run("unpatch", "-b", "demo")
    assert ran.code == 10 and "in the way: out" in ran.err
    lab.unpatch("--discard")
    assert list(outside.iterdir()) == []
    assert (lab.place() / "out/file.py").read_text() == "the layer's\n"


def test_empty_folders_in_the_way(lab: Lab) -> None:
    """git does not see them, and they hold nothing."""
    (lab.place() / "first.py").unlink()
    (lab.place() / "first.py/a/b").mkdir(parents=True)
    lab.unpatch("--discard")
    assert (lab.place() / "first.py").read_text() == "1\n"


def test_kinds_change_on_update(lab: Lab) -> None:
    """File to folder, folder to link, link to file, all by an update of the layer."""
    away = lab.place().with_name("away")
    lab.place().rename(away)
    lab.unpatch()
    (lab.place() / "notes.txt").unlink()
    edit(lab, "notes.txt/deep/one", "1\n")
    shutil.rmtree(lab.place() / "pkg")
    (lab.place() / "pkg").symlink_to("data")
    (lab.place() / "latest").unlink()
    edit(lab, "latest", "a file\n")
    lab.patch()
    want = snapshot(lab.place())
    lab.remove_place()
    away.rename(lab.place())
    lab.unpatch()
    assert snapshot(lab.place()) == want
    git("revert", "--no-edit", "HEAD", cwd=lab.place())
    lab.patch()
    lab.unpatch()
    assert (lab.place() / "pkg/deep/er/leaf.txt").is_file()


def test_survives_without_the_cache(lab: Lab) -> None:
    """The repository owns its objects; the cache can be deleted at any time."""
    edit(lab, "mine.py", "mine\n")
    edit(lab, "pkg/util.py", "mine\n")
    shutil.rmtree(lab.store.root)
    assert git("fsck", "--strict", cwd=lab.place()) == b""
    assert git("diff", "--stat", cwd=lab.place())
    assert lab.run("unpatch", "-b", "demo").code == 10
    lab.patch()
    assert lab.work_tree() == lab.result("first")
    edit(lab, "mine.py", "again\n")
    shutil.rmtree(lab.store.root)
    lab.unpatch("--discard")
    # Not even the upstream is needed: the repository in place has the pin's content.
    shutil.rmtree(lab.store.root)
    shutil.rmtree(lab.upstream)
    edit(lab, "late.py", "late\n")
    lab.patch()
    assert (lab.layer("first") / "overlay/late.py").read_text() == "late\n"


@pytest.mark.parametrize("linked", [True, False])
def test_the_pack_of_an_archive_is_taken_over(
    linked: bool, make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a link, as git clone does, or a copy where none can be made; the cache may go then."""
    files = {f"pkg/{number}.py": b"x = %d\n" % number for number in range(120)}
    lab = make_project(files)
    db = GitDb(lab.store).open()
    tree = db.import_files((name.encode(), "100644", data) for name, data in files.items())
    pack = db.pack_of(tree)
    assert pack is not None
    if not linked:

        def refuse(source: Path, target: Path) -> None:
            raise OSError(errno.EXDEV, "another file system", str(target))

        monkeypatch.setattr(os, "link", refuse)
    lab.unpatch()
    taken = lab.place() / ".git" / "objects" / "pack" / pack.name
    assert taken.samefile(pack) is linked
    shutil.rmtree(lab.store.root)
    assert git("status", "--porcelain", cwd=lab.place()) == b""
    assert git("fsck", "--strict", "--no-dangling", cwd=lab.place()) == b""


def test_a_pack_without_what_the_store_had_is_not_taken_for_whole(
    make_project: MakeProject,
) -> None:
    """A second version shares most of its files with the first, which are in the first's pack."""
    files = {f"pkg/{number}.py": b"x = %d\n" % number for number in range(120)}
    lab = make_project(files)
    db = GitDb(lab.store).open()
    before = {**files, "pkg/119.py": b"older\n"}
    first = db.import_files((name.encode(), "100644", data) for name, data in before.items())
    second = db.import_files((name.encode(), "100644", data) for name, data in files.items())
    assert db.pack_of(first) is not None and db.pack_of(second) is None
    lab.unpatch()
    assert git("status", "--porcelain", cwd=lab.place()) == b""


def test_one_index_tells_where_all_packs_have_their_objects(tmp_path: Path) -> None:
    """Whatever a run that was killed has left of writing it."""
    db = GitDb(Store(tmp_path)).open()
    packs = db.path / "objects" / "pack"
    for version in range(3):
        files = ((b"%d.py" % n, "100644", b"%d, %d\n" % (version, n)) for n in range(120))
        db.import_files(files)
        (packs / "multi-pack-index.lock").touch()
    (packs / "multi-pack-index.lock").unlink()
    assert db.run("multi-pack-index", "verify").code == 0
    told = (packs / "multi-pack-index").read_bytes()
    assert len(list(packs.glob("*.idx"))) == 3
    assert all(path.name.encode() in told for path in packs.glob("*.idx"))


def test_names_that_the_disk_changed_are_told(tmp_path: Path) -> None:
    """Two files that a file system takes for one, and one that it spells otherwise."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "a.py").write_text("")
    (tmp_path / "link").symlink_to("pkg")
    _verify(tmp_path, {b"pkg/a.py", b"link"})
    with pytest.raises(StoreError, match=r"pkg/A\.py"):
        _verify(tmp_path, {b"pkg/a.py", b"pkg/A.py", b"link"})
    with pytest.raises(StoreError, match=r"pkg/a\.py, pkg/b\.py"):
        _verify(tmp_path, {b"pkg/b.py", b"link"})


def test_lock_of_a_dead_git_is_removed(lab: Lab) -> None:
    for name in ("index.lock", "HEAD.lock", "refs/heads/uniscale.lock"):
        (lab.place() / ".git" / name).touch()
    edit(lab, "x.py", "x\n")
    lab.patch()
    assert git("status", "--porcelain", cwd=lab.place()) == b""
    git("commit", "-q", "--allow-empty", "-m", "x", cwd=lab.place())


def test_lock_of_a_living_git_is_respected(lab: Lab) -> None:
    lock = lab.place() / ".git/index.lock"
    lock.touch()
    waiting = subprocess.Popen(
        ["git", "cat-file", "--batch"], cwd=lab.place(), stdin=subprocess.PIPE
    )
    try:
        ran = lab.run("unpatch", "-b", "demo")
        assert ran.code == 9 and f"process {waiting.pid}" in ran.err
        assert lock.exists()
    finally:
        assert waiting.stdin is not None
        waiting.stdin.close()
        waiting.wait()


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no second file system here")
def test_cache_on_another_disk(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix='odd:"na me" ') as other:
        assert os.stat(other).st_dev != os.stat(lab.root).st_dev
        monkeypatch.setenv("UNISCALE_CACHE", other)
        lab.remove_place()
        lab.unpatch()
        edit(lab, "first.py", "2\n")
        lab.patch()
        edit(lab, "first.py", "3\n")
        lab.unpatch("--discard")
        lab.unpatch("--check")
    assert git("fsck", "--strict", cwd=lab.place()) == b""


@pytest.mark.parametrize("command", ["unpatch", "patch"])
def test_full_disk_of_the_project(lab: Lab, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(lab, "first.py", "2\n")
    if command == "unpatch":
        lab.patch()
        lab.remove_place()
    before = snapshot(lab.root)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("uniscale_build.inplace.unpatch._verify", full)
    monkeypatch.setattr("uniscale_build.layers.layerfile._write", full)
    ran = lab.run(command, "-b", "demo")
    assert (ran.code, "error[disk-full]" in ran.err) == (9, True), ran
    assert "UNISCALE_CACHE" not in ran.err, "the cache has nothing to do with it"
    assert snapshot(lab.root) == before, "half-made things stay on a full disk"
    monkeypatch.undo()
    enter(monkeypatch, lab)
    lab.ok(command, "-b", "demo")


def test_damage_in_git_s_own_folder_is_told_with_a_way_out(lab: Lab) -> None:
    edit(lab, "first.py", "2\n")
    index = lab.place() / ".git/index"
    index.write_bytes(b"")
    ran = lab.run("patch", "-b", "demo")
    assert (ran.code, f"rm {index}" in ran.err) == (9, True), ran
    index.unlink()
    lab.patch()
    (lab.place() / ".git/uniscale.json").write_text("{")
    ran = lab.run("patch", "-b", "demo")
    assert (ran.code, "away and run unpatch again" in ran.err) == (9, True), ran


def test_an_unfinished_am_is_called_so(lab: Lab) -> None:
    (lab.place() / ".git/rebase-apply").mkdir()
    (lab.place() / ".git/rebase-apply/applying").touch()
    ran = lab.run("patch", "-b", "demo")
    assert (ran.code, "git -C third_party/demo am --continue" in ran.err) == (10, True), ran


def test_two_at_once(lab: Lab) -> None:
    lab.remove_place()
    argv = [sys.executable, "-m", "uniscale_build", "unpatch", "-b", "demo", "--json"]
    path = str(Path(__file__).parents[1] / "build_backend")
    env = {**os.environ, "PYTHONPATH": path}
    both = [subprocess.Popen(argv, env=env, stdout=subprocess.PIPE) for _ in range(2)]
    out = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    actions = sorted(text.decode().split('"action": "')[1].split('"')[0] for text in out)
    assert actions == ["created", "unchanged"]


def test_threads_in_one_process_wait_for_one_another(lab: Lab) -> None:
    lab.remove_place()
    codes: list[int] = []
    runs = [
        threading.Thread(target=lambda: codes.append(lab.run("unpatch", "-b", "demo").code))
        for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert codes == [0, 0]


# The faults of the predecessor, each by its own name there.


def test_u1_one_bad_patch_changes_nothing(lab: Lab) -> None:
    pulled(lab, ("second.py", "2\n"), ("pkg/core.py", "x\n"))
    patch = lab.layer("first") / "diff/pkg/core.py.patch"
    patch.write_bytes(patch.read_bytes().replace(b"-# line 3 ", b"-# line 33 "))
    before = snapshot(lab.place())
    ran = lab.run("unpatch", "-b", "demo")
    assert (ran.code, "diff/pkg/core.py.patch" in ran.err) == (5, True)
    assert snapshot(lab.place()) == before


def test_u2_an_edited_layer_is_told(lab: Lab) -> None:
    overlay = lab.layer("first") / "overlay/first.py"
    overlay.write_text("edited in the layer\n")
    ran = lab.run("unpatch", "-b", "demo")
    assert (ran.code, "edited by hand" in ran.err) == (5, True)
    assert (lab.place() / "first.py").read_text() == "1\n"


def test_u3_dangling_links_anywhere(make_project: MakeProject) -> None:
    lab = make_project({**UPSTREAM, "dangling": Link("not/there")})
    (lab.root / "dangling").symlink_to("/not/there")
    lab.unpatch()
    assert os.readlink(lab.place() / "dangling") == "not/there"


def test_u4_ignored_data_is_not_copied(lab: Lab) -> None:
    (lab.root / "data.bin").write_bytes(bytes(30 << 20))
    edit(lab, "x.o", "")
    (lab.place() / "x.o").write_bytes(bytes(30 << 20))
    edit(lab, "x.py", "x\n")
    lab.patch()
    lab.unpatch()
    sizes = [p.stat().st_size for base in (lab.root, lab.store.root) for p in base.rglob("*")
             if p.is_file() and not p.is_symlink()]  # fmt: skip
    assert sum(sizes) < 62 << 20


@pytest.mark.parametrize("device", ["acme/../..", "../../x", "..", "/etc", ".git", "", "a\nb"])
def test_u6_device_names_cannot_leave(lab: Lab, device: str) -> None:
    before = snapshot(lab.root)
    assert lab.run("unpatch", "-b", "demo", "-d", device, "--discard").code == 2
    assert snapshot(lab.root) == before


def test_u7_upstream_with_any_branch_name(make_project: MakeProject) -> None:
    lab = make_project(kind="git")
    git("branch", "-m", "develop", cwd=lab.upstream)
    git("config", "uploadpack.allowAnySHA1InWant", "true", cwd=lab.upstream)
    lab.unpatch()
    assert snapshot(lab.place()) == snapshot(lab.upstream)


def test_u8_unreachable_upstream_loses_nothing(lab: Lab) -> None:
    edit(lab, "x.py", "x\n")
    shutil.rmtree(lab.upstream)
    shutil.rmtree(lab.store.root)
    git("update-ref", "-d", "refs/heads/uniscale", cwd=lab.place())
    shutil.rmtree(lab.place() / ".git/objects")
    (lab.place() / ".git/objects").mkdir()
    before = snapshot(lab.place())
    ran = lab.run("unpatch", "-b", "demo", "--discard")
    assert ran.code == 4 and "could not be had" in ran.err
    assert snapshot(lab.place()) == before


def test_h2_the_project_itself_is_left_alone(lab: Lab) -> None:
    git("init", "-q", "-b", "main", ".", cwd=lab.root)
    (lab.root / ".gitignore").write_text("/third_party/\n/build/\n")
    git("add", "-A", cwd=lab.root)
    git("commit", "-q", "-m", "project", cwd=lab.root)
    (lab.root / "mine.txt").write_text("unfinished\n")
    git("stash", "-u", "-q", cwd=lab.root)
    before = git("for-each-ref", cwd=lab.root) + git("symbolic-ref", "HEAD", cwd=lab.root)
    edit(lab, "x.py", "x\n")
    lab.patch()
    after = git("for-each-ref", cwd=lab.root) + git("symbolic-ref", "HEAD", cwd=lab.root)
    assert after == before
    assert git("diff", "--cached", "--name-only", cwd=lab.root) == b""
    assert git("ls-files", "-m", "-o", "--exclude-standard", cwd=lab.root).decode().split() == [
        "patches/demo/first/overlay/x.py", "patches/demo/first/layer.yaml",
    ]  # fmt: skip


def test_h3_without_standard_input(lab: Lab) -> None:
    edit(lab, "x.py", "x\n")
    path = str(Path(__file__).parents[1] / "build_backend")
    done = subprocess.run(
        [sys.executable, "-c", "import os; os.close(0); import uniscale_build.__main__ as m; "
         "m.sys.argv[1:] = ['patch', '-b', 'demo']; m.main()"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (lab.layer("first") / "overlay/x.py").is_file()


def test_h4_old_stashes_stay(lab: Lab) -> None:
    edit(lab, "stashed.py", "x\n")
    git("stash", "-u", "-q", cwd=lab.place())
    stash = git("rev-parse", "stash", cwd=lab.place())
    edit(lab, "x.py", "x\n")
    lab.patch()
    assert git("rev-parse", "stash", cwd=lab.place()) == stash
    assert not (lab.layer("first") / "overlay/stashed.py").exists()


# Submodules: third_party/<backend> may be one already.


@pytest.fixture
def submodule(make_project: MakeProject) -> Lab:
    """A project that has the upstream as an initialised submodule, on a detached HEAD."""
    lab = make_project({**UPSTREAM, ".gitattributes": b"*.bat text eol=crlf\n",
                        "run.bat": b"one\ntwo\n"}, kind="git")  # fmt: skip
    git("init", "-q", "-b", "main", ".", cwd=lab.root)
    git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add",
        str(lab.upstream), "third_party/demo", cwd=lab.root)  # fmt: skip
    git("config", "-f", ".gitmodules", "submodule.third_party/demo.ignore", "all", cwd=lab.root)
    git("add", "-A", cwd=lab.root)
    git("commit", "-q", "-m", "project", cwd=lab.root)
    git("checkout", "-q", "--detach", cwd=lab.place())
    return lab


def test_submodule_is_worked_with(submodule: Lab) -> None:
    lab = submodule
    upstream = git("rev-parse", "HEAD", cwd=lab.place())
    before = git("for-each-ref", "refs/heads/main", "refs/remotes", cwd=lab.place())
    lab.unpatch()
    assert (lab.place() / ".git").is_file()
    assert (lab.place() / "run.bat").read_bytes() == b"one\ntwo\n"
    edit(lab, "x.py", "x\n")
    lab.new_layer("first")
    assert git("rev-parse", "HEAD~1", cwd=lab.place()) == upstream
    assert git("for-each-ref", "refs/heads/main", "refs/remotes", cwd=lab.place()) == before
    assert git("status", "--porcelain", cwd=lab.place()) == b""
    status = git("status", "--porcelain", "--untracked-files=all", cwd=lab.root).decode()
    assert "third_party" not in status
    assert lab.unpatch("--json").json["action"] == "unchanged"


def test_submodule_with_edits(submodule: Lab) -> None:
    lab = submodule
    edit(lab, "pkg/util.py", "mine\n")
    edit(lab, "new.py", "mine\n")
    before = snapshot(lab.place())
    ran = lab.run("unpatch", "-b", "demo")
    assert ran.code == 10 and "M pkg/util.py" in ran.err and "?? new.py" in ran.err
    assert snapshot(lab.place()) == before
    done = lab.unpatch("--discard", "--json").json
    recover(done["recover"])
    assert (lab.place() / "new.py").read_text() == "mine\n"


def test_submodule_on_another_commit(submodule: Lab) -> None:
    lab = submodule
    edit(lab, "pkg/util.py", "mine\n")
    git("commit", "-q", "-a", "-m", "mine", cwd=lab.place())
    head = git("rev-parse", "HEAD", cwd=lab.place()).decode().strip()
    done = lab.unpatch("--json").json
    assert git("rev-parse", done["kept"], cwd=lab.place()).decode().strip() == head
    assert lab.work_tree() == lab.project.resolve("demo", None)[0].tree


def test_submodule_captured_without_unpatch(submodule: Lab) -> None:
    """The pin with nothing on it is in place as soon as the submodule is initialised."""
    lab = submodule
    edit(lab, "x.py", "x\n")
    lab.new_layer("first")
    assert (lab.layer("first") / "overlay/x.py").is_file()


def test_submodule_not_initialised(submodule: Lab) -> None:
    lab = submodule
    git("submodule", "deinit", "-q", "-f", "third_party/demo", cwd=lab.root)
    assert list(lab.place().iterdir()) == []
    lab.unpatch()
    assert (lab.place() / "setup.py").is_file()


# Surroundings.


def test_git_variables_of_a_hook_are_ignored(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_OBJECT_DIRECTORY"):
        monkeypatch.setenv(name, str(lab.root / "nowhere"))
    lab.remove_place()
    lab.unpatch()
    edit(lab, "x.py", "x\n")
    lab.patch()
    assert not (lab.root / "nowhere").exists()


def test_no_program_of_a_configuration_runs(lab: Lab, tmp_path: Path) -> None:
    """Neither hooks nor monitors nor filters, be they of the repository or of the user."""
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\nexit 1\n")
    program.chmod(0o755)
    hooks = lab.place() / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-checkout", "reference-transaction", "post-index-change", "pre-commit"):
        shutil.copy(program, hooks / name)
    git("config", "core.fsmonitor", str(program), cwd=lab.place())
    config = Path(os.environ["HOME"], ".gitconfig")
    config.write_text(
        f"[user]\nname = A\nemail = a@b.org\n[core]\nfsmonitor = {program}\nautocrlf = true\n"
        f'[filter "lfs"]\nclean = {program}\nsmudge = {program}\nrequired = true\n'
        f"[diff]\nexternal = {program}\n"
    )
    edit(lab, ".gitattributes", "* filter=lfs text\n")
    (lab.place() / "crlf.txt").write_bytes(b"a\r\nb\r\n")
    lab.patch()
    pulled(lab, ("second.py", "2\n"))
    lab.unpatch()
    lab.remove_place()
    lab.unpatch()
    assert not ran.exists()
    assert (lab.place() / "crlf.txt").read_bytes() == b"a\r\nb\r\n"
    shutil.rmtree(lab.place() / ".git/hooks", ignore_errors=True)
    config.write_text(config.read_text().replace("fsmonitor", "#"))
    assert git("status", "--porcelain", cwd=lab.place()) == b""
    assert not ran.exists()


def test_odd_project_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "a b" / "进 'quoted' [x]"
    base.mkdir(parents=True)
    lab = make_lab(base, UPSTREAM)
    for name, path in (("PROJECT", lab.root), ("CACHE", lab.store.root)):
        monkeypatch.setenv(f"UNISCALE_{name}", str(path))
    monkeypatch.delenv("HOME")
    lab.unpatch()
    edit(lab, "x.py", "x\n")
    lab.new_layer("first")
    edit(lab, "y.py", "y\n")
    recover(lab.unpatch("--discard", "--json").json["recover"])
    assert (lab.place() / "y.py").read_text() == "y\n"


def test_project_behind_a_link(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "alias").symlink_to(lab.root)
    monkeypatch.setenv("UNISCALE_PROJECT", str(tmp_path / "alias"))
    edit(lab, "x.py", "x\n")
    lab.patch()
    assert (lab.layer("first") / "overlay/x.py").is_file()


def test_cache_that_cannot_be_written(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNISCALE_CACHE", "/sys/uniscale")
    before = snapshot(lab.root, skip=())
    ran = lab.run("unpatch", "-b", "demo")
    assert ran.code == 9 and "UNISCALE_CACHE" in ran.err, ran
    assert snapshot(lab.root, skip=()) == before


def test_no_project_to_write(make_project: MakeProject, tmp_path: Path) -> None:
    from uniscale_build.errors import SettingsError
    from uniscale_build.inplace.stack import find_target
    from uniscale_build.project import Project

    lab = make_project()
    with pytest.raises(SettingsError, match="no place to work in"):
        find_target(Project(lab.root, False), "demo", None)


def test_sparse_checkout_deletes_nothing(lab: Lab) -> None:
    git("status", cwd=lab.place())  # the copied files are new to the index
    git("sparse-checkout", "set", "--no-cone", "/pkg/", cwd=lab.place())
    assert not (lab.place() / "setup.py").exists()
    edit(lab, "pkg/x.py", "x\n")
    want = {"overlay/first.py", "overlay/pkg/x.py", "diff/setup.py.patch", "layer.yaml"}
    lab.patch()
    have = {str(p.relative_to(lab.layer("first"))) for p in lab.layer("first").rglob("*")
            if p.is_file()}  # fmt: skip
    assert have == want


def test_upstream_helper_makes_what_it_says(tmp_path: Path) -> None:
    commit = git_upstream(tmp_path / "u", UPSTREAM)
    assert git("rev-parse", "HEAD", cwd=tmp_path / "u").decode().strip() == commit
    kinds = {name: value[0] for name, value in snapshot(tmp_path / "u").items()}
    assert kinds["latest"] == "link" and kinds["setup.py"] == "file"


def test_a_mirror_rule_that_is_none_is_refused(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_project()
    shutil.rmtree(lab.store.root)
    for rule in ("https://mirror.example.com/", "=https://mirror.example.com/"):
        monkeypatch.setenv("UNISCALE_MIRRORS", rule)
        ran = lab.run("unpatch", "-b", "demo")
        assert (ran.code, "is not FROM=TO" in ran.err) == (2, True), ran


def test_mirrors_are_asked_in_their_order(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_project(kind="git")
    manifest = lab.root / "manifests/backends/demo.yaml"
    manifest.write_text(
        manifest.read_text().replace(lab.upstream.as_uri(), "https://upstream.invalid/org/demo")
    )
    gone, there = (path.as_uri() for path in (lab.root / "gone", lab.upstream.parent))
    rules = f"https://upstream.invalid/={gone}/ https://upstream.invalid/org/demo={there}/upstream"
    monkeypatch.setenv("UNISCALE_MIRRORS", rules)
    ran = lab.unpatch()
    tried = [line.rsplit(" ", 1)[-1] for line in ran.err.splitlines() if "fetch: " in line]
    assert tried == [f"{gone}/org/demo", f"{there}/upstream"], ran
