"""`uniscale.engines.engines`: the pure function from data to a command."""

from __future__ import annotations

from uniscale.engines.engines import Command, Launch, Place, command
from uniscale.frozen import changed

LAUNCH = Launch(
    argv=("bin/llama-server",),
    model="--model",
    arguments={"host": "--host", "port": "--port", "served_model_name": "--alias"},
    fixed=("--no-webui",),
    formats=("gguf",),
    probe="/health",
)
PLACE = Place("/p", python="/usr/bin/python3")
ARGUMENTS = {"host": "127.0.0.1", "port": 8080, "served_model_name": "demo"}


def make(
    launch: Launch = LAUNCH,
    place: Place = PLACE,
    raw: tuple[str, ...] = (),
    environ: dict[str, str] | None = None,
    **arguments: object,
) -> Command:
    return command(
        launch,
        place,
        model="/m.gguf",
        arguments={**ARGUMENTS, **arguments},
        raw=raw,
        environ={"PATH": "/bin"} if environ is None else environ,
    )


def test_the_order_is_head_model_arguments_fixed() -> None:
    made = make()
    assert made.argv == (
        *("/p/bin/llama-server", "--model", "/m.gguf", "--host", "127.0.0.1"),
        *("--port", "8080", "--alias", "demo", "--no-webui"),
    )
    assert (made.host, made.port, made.served_name) == ("127.0.0.1", "8080", "demo")


def test_raw_flags_come_last_verbatim_and_win() -> None:
    raw = ("--port=9000", "--alias", "mine", "--webui", "a b", "--", "$(x)")
    made = make(raw=raw)
    assert made.argv[-7:] == raw
    assert "8080" not in made.argv and "--no-webui" not in made.argv
    assert (made.port, made.served_name) == ("9000", "mine")


def test_arguments_that_the_engine_lacks_and_none_are_left_out() -> None:
    assert make(max_model_len=4096).argv == make().argv
    assert "--alias" not in make(served_model_name=None).argv


def test_a_positional_model_stands_behind_the_head() -> None:
    made = make(changed(LAUNCH, argv=("python", "-m", "vllm", "serve"), model=""))
    assert made.argv[:5] == ("/usr/bin/python3", "-m", "vllm", "serve", "/m.gguf")


def test_a_bare_program_is_left_to_path() -> None:
    assert make(changed(LAUNCH, argv=("trtllm-serve", "serve"))).argv[0] == "trtllm-serve"


def test_without_a_flag_for_the_name_the_engine_calls_the_model_by_its_path() -> None:
    launch = changed(LAUNCH, arguments={"host": "--host", "port": "--port"})
    assert make(launch).served_name == "/m.gguf"


def test_the_environment_puts_the_prefix_first() -> None:
    place = changed(PLACE, device_environment={"CHIP": "1", "MINE": "theirs"})
    environ = {"PATH": "/bin", "PYTHONPATH": "/old:", "MINE": "own"}
    assert make(place=place, environ=environ).environment == {
        "CHIP": "1",
        "PYTHONPATH": "/p:/old:",
        "PATH": "/p/bin:/bin",
    }


def test_an_empty_environment_gives_no_empty_entries() -> None:
    # An empty entry of either variable would mean the current folder.
    for environ in ({}, {"PATH": "", "PYTHONPATH": ""}):
        made = make(environ=environ).environment
        assert made["PYTHONPATH"] == "/p"
        assert all(made["PATH"].split(":"))
