"""The command of each machine: a pure function, so it is compared word by word."""

from __future__ import annotations

import shlex

import pytest
from uniscale.engines import enginefile
from uniscale.nodes import nodes
from uniscale.nodes.hostfile import Host
from uniscale_build.errors import LaunchError

TWO = (Host("10.0.0.1", slots=8, type="A800"), Host("10.0.0.2", slots=4, type="BI_V150"))


def spread(name: str) -> enginefile.Spread:
    described = enginefile.find(name)
    assert described is not None
    return described.nodes


def test_training_on_two_machines() -> None:
    special = {"BI_V150": {"KIND": "iluvatar"}, "10.0.0.2": {"ONE": "2"}}
    first, second = nodes.training(
        ["train.py", "--x", "$(touch x)"],
        TWO,
        python="/py",
        environment={"ONE": "1", "ODD": "a 'b'"},
        special=special,
        options=["--max-restarts=2"],
    )
    torchrun = ("/py", "-m", "torch.distributed.run", "--nnodes=2")
    place = ("--master-addr=10.0.0.1", "--master-port=29500", "--max-restarts=2")
    script = ("train.py", "--x", "$(touch x)")
    assert first.argv == (*torchrun, "--node-rank=0", "--nproc-per-node=8", *place, *script)
    assert second.argv == (*torchrun, "--node-rank=1", "--nproc-per-node=4", *place, *script)
    assert first.environment == {"ONE": "1", "ODD": "a 'b'"}
    assert second.environment == {"ONE": "2", "ODD": "a 'b'", "KIND": "iluvatar"}
    assert second.local == {"GLOO_SOCKET_IFNAME": "interface"} and second.head == "10.0.0.1"


def test_training_on_one_machine_needs_no_rendezvous() -> None:
    (node,) = nodes.training(["-m", "mine"], TWO[:1], python="/py", processes=2)
    words = ("/py", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    assert node.argv == (*words, "-m", "mine")
    assert node.local == {}
    (bare,) = nodes.training(["a.py"], [Host("h", python="/other")], python="/py")
    assert bare.argv[0] == "/other" and "--nproc-per-node=1" in bare.argv


def test_what_the_user_sets_is_not_filled_in() -> None:
    told = nodes.training(["a.py"], TWO, python="/py", environment={"GLOO_SOCKET_IFNAME": "ib0"})
    assert told[0].local == {} and told[0].environment["GLOO_SOCKET_IFNAME"] == "ib0"


def test_vllm_by_its_own_flags() -> None:
    argv = ["vllm", "serve", "m", "--tensor-parallel-size", "8", "--master-port", "4000"]
    first, second = nodes.serving(argv, spread("vllm"), TWO, engine="vLLM")
    rank = ("--nnodes", "2", "--node-rank")
    assert first.argv == (*argv, *rank, "0", "--master-addr", "10.0.0.1")
    assert second.argv == (*argv, *rank, "1", "--master-addr", "10.0.0.1", "--headless")
    assert first.local["VLLM_HOST_IP"] == "address"


def test_a_vllm_without_these_flags_runs_on_ray() -> None:
    known = ["--tensor-parallel-size", "--distributed-executor-backend"]
    found = nodes.serving(["vllm", "serve", "m"], spread("vllm"), TWO, engine="vLLM", known=known)
    words = ("ray", "symmetric-run", "--address", "10.0.0.1:6379", "--min-nodes", "2", "--")
    tail = ("vllm", "serve", "m", "--distributed-executor-backend", "ray")
    assert [one.argv for one in found] == [(*words, *tail)] * 2


def test_sglang_names_the_head_in_one_word() -> None:
    six = (Host("fd00::1"), Host("fd00::2"))
    _, second = nodes.serving(["python"], spread("sglang"), six, engine="SGLang", port=5000)
    told = ("--nnodes", "2", "--node-rank", "1", "--dist-init-addr", "[fd00::1]:5000")
    assert second.argv == ("python", *told)


def test_a_host_with_a_python_of_its_own() -> None:
    mixed = (Host("a"), Host("b", python="/opt/python"))
    argv = ["/py", "-m", "sglang.launch_server"]
    first, second = nodes.serving(argv, spread("sglang"), mixed, engine="SGLang", python="/py")
    assert (first.argv[0], second.argv[:2]) == ("/py", ("/opt/python", "-m"))
    known = ["--distributed-executor-backend"]
    told = nodes.serving(argv, spread("vllm"), mixed, engine="vLLM", python="/py", known=known)
    assert told[1].argv[7:9] == ("/opt/python", "-m"), "behind ray's words too"


def test_engines_of_one_machine_say_so() -> None:
    with pytest.raises(LaunchError, match=r"llama\.cpp runs on one machine only, not on 2"):
        nodes.serving(["llama-server"], spread("llama.cpp"), TWO, engine="llama.cpp")
    (only,) = nodes.serving(["llama-server"], spread("llama.cpp"), TWO[:1], engine="llama.cpp")
    assert only.argv == ("llama-server",)
    with pytest.raises(LaunchError) as caught:
        nodes.serving(["x"], spread("sglang"), TWO, engine="SGLang", known=["--nnodes"])
    assert "this build has no --node-rank and no --dist-init-addr" in str(caught.value.hint)


def test_the_text_for_a_shell_means_the_same() -> None:
    node = nodes.training(["a b.py"], TWO, python="/py", environment={"X": "$(touch x)\n'"})[1]
    text = nodes.shell(node)
    assert text.startswith("# rank 1, on 10.0.0.2\n")
    assert "interface towards 10.0.0.1" in text
    words = shlex.split(text.replace(" \\\n", " "), comments=True)
    assert words == ["X=$(touch x)\n'", "GLOO_SOCKET_IFNAME=…", *node.argv]
    assert node.as_json()["local"] == {"GLOO_SOCKET_IFNAME": "interface"}
