"""A wheel is whole or absent, whatever happens while it is written; and it installs."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from uniscale_build.errors import StoreError
from uniscale_build.wheels import zipfmt
from uniscale_build.wheels.deflate import BLOCK
from uniscale_build.wheels.wheel import Member, read_wheel, write_wheel

from .wheels import CONTENTS, FILE, METADATA, Listener, noise, tree, write

ROOT = Path(__file__).resolve().parent.parent
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "build_backend")])}


def test_a_full_disk_leaves_the_old_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write(tmp_path, [Member("a", b"old")])
    put = zipfmt.Archive._put

    def fails(self: zipfmt.Archive, data: bytes) -> None:
        if len(data) > 3000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(self, data)

    monkeypatch.setattr(zipfmt.Archive, "_put", fails)
    with pytest.raises(StoreError) as caught:
        write(tmp_path, [Member("a", noise(20_000))])
    assert caught.value.slug == "disk-full"
    assert "output folder" in (caught.value.hint or "")
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert read_wheel(old.path).sha256 == old.sha256


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small disk takes root")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk],
                             capture_output=True, check=False)  # fmt: skip
    if mounted.returncode != 0:
        pytest.skip("no disk can be mounted here")
    try:
        old = write(disk, [Member("a", b"old")])
        with pytest.raises(StoreError) as caught:
            write(disk, tree(tmp_path / "src", {"a": random.Random(1).randbytes(3 * BLOCK)}))
        assert caught.value.slug == "disk-full"
        assert [path.name for path in disk.iterdir()] == [FILE]
        assert read_wheel(old.path).sha256 == old.sha256
    finally:
        subprocess.run(["umount", disk], check=True)


def test_an_interrupt_leaves_the_old_wheel(tmp_path: Path) -> None:
    old = write(tmp_path, [Member("a", b"old")])

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, tree(tmp_path / "src", CONTENTS), reporter=Listener(interrupt))
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, "src"]
    assert read_wheel(old.path).sha256 == old.sha256


def test_a_killed_run_leaves_the_old_wheel_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    old = write(tmp_path, [Member("a", b"old")])
    source = tmp_path / "big.bin"
    source.write_bytes(noise(12 * BLOCK))
    script = (
        "import sys; from pathlib import Path; from tests.wheels import write\n"
        "from uniscale_build.wheels.wheel import Member\n"
        "write(Path(sys.argv[1]), [Member('a', Path(sys.argv[2]))], compression='best', threads=1)"
    )
    child = subprocess.Popen([sys.executable, "-c", script, tmp_path, source], env=ENV)
    part = tmp_path / f".{FILE}.part"
    while child.poll() is None and not (part.exists() and part.stat().st_size > 1000):
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert read_wheel(old.path).sha256 == old.sha256
    assert part.exists()
    made = write(tmp_path, [Member("a", b"new")])
    assert not part.exists()
    assert made.sha256 == write(tmp_path / "fresh", [Member("a", b"new")]).sha256


def test_several_writers_of_one_wheel_do_not_disturb_each_other(tmp_path: Path) -> None:
    members = tree(tmp_path / "src", CONTENTS)
    expected = write(tmp_path / "alone", members).sha256
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(write(tmp_path, members).sha256))
               for _ in range(4)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", FILE, "src"]


def test_memory_stays_small_for_a_large_file(tmp_path: Path) -> None:
    source = tmp_path / "big.bin"
    with source.open("wb") as stream:
        stream.truncate(300 << 20)  # a hole: it takes no disk
    script = (
        "import sys; from pathlib import Path; from tests.wheels import write\n"
        "from uniscale_build.wheels.wheel import Member\n"
        "write(Path(sys.argv[1]), [Member('a', Path(sys.argv[2]))], compression='fast')\n"
        # Not ru_maxrss: that one remembers the size of the process that forked us.
        "status = Path('/proc/self/status').read_text().splitlines()\n"
        "print(next(line for line in status if line.startswith('VmHWM')).split()[1])"
    )
    ran = subprocess.run([sys.executable, "-c", script, tmp_path, source], env=ENV,
                         capture_output=True, text=True, check=True)  # fmt: skip
    assert int(ran.stdout) < 150_000  # kB


def installed(home: Path) -> list[Path]:
    """The files that an environment's programs and packages consist of."""
    found = [*home.glob("bin/*"), *home.glob("lib/**/*")]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def test_a_wheel_installs_and_uninstalls_with_pip_and_uv(tmp_path: Path) -> None:
    made = write_wheel(
        tmp_path, name="probe", version="1.0", tag="py3-none-any",
        metadata=METADATA, entry_points="[console_scripts]\nprobe = probe:main\n",
        members=[*tree(tmp_path / "src", CONTENTS),
                 Member("probe.py", b"def main():\n    print('answers')\n")],
    )  # fmt: skip
    home = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    tools = (
        {}
        if find_spec("pip") is None
        else {"pip": ([*pip, "install", "--no-deps", "--no-index"], [*pip, "uninstall", "-y"])}
    )
    uv = Path(sys.executable).with_name("uv")
    if uv.exists():
        where = ["--python", str(python), "--offline", "--no-cache"]
        tools["uv"] = ([str(uv), "pip", "install", "--no-deps", "--no-index", *where],
                       [str(uv), "pip", "uninstall", *where])  # fmt: skip
    if not tools:
        pytest.skip("neither pip nor uv is here")
    site = next(home.glob("lib/python*/site-packages"))
    (site / "neighbour.py").write_text("")  # an empty site-packages would go too
    before = installed(home)
    for install, uninstall in tools.values():
        subprocess.run([*install, str(made.path)], check=True, capture_output=True)
        said = subprocess.run([home / "bin" / "probe"], capture_output=True, text=True, check=True)
        assert said.stdout == "answers\n"
        assert (site / "pkg" / "large.bin").read_bytes() == CONTENTS["pkg/large.bin"]
        assert os.access(site / "pkg" / "bin" / "tool", os.X_OK)
        subprocess.run([*uninstall, "probe"], check=True, capture_output=True)
        assert installed(home) == before
