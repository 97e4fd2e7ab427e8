"""``uniscale-build doctor``, ``devices``, ``new-device`` and ``new-backend``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uniscale_build.cli.app import Device, Json, Verbose

if TYPE_CHECKING:
    from uniscale_build.findings import Report

devices = typer.Typer(help="Show what devices there are.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(doctor)
    app.command("new-device")(new_device)
    app.command("new-backend")(new_backend)
    app.add_typer(devices, name="devices")


def doctor(device: Device = None, json: Json = False, verbose: Verbose = False) -> None:
    """Say what this machine lacks for building, and what brings it; exit code 6 when it must."""
    import json as format_json

    from uniscale_build.bringup.doctor import check_device, check_machine, check_project
    from uniscale_build.project import find_project

    project = find_project()
    manifests = project.manifests
    named = [manifests.device(device)] if device else list(manifests.devices.values())
    reports = [check_machine(), check_project(project)]
    per_device = [check_device(item) for item in named]
    if json:
        print(format_json.dumps([item.as_json() for item in (*reports, *per_device)], indent=2))
    else:
        for report in reports:
            _print_report(report, "This machine" if report is reports[0] else "This project")
        for report in per_device:
            _print_report(report, report.device, brief=device is None)
    # Nobody has every vendor's SDK: only a device that was asked for is a failure.
    asked = [*reports, *(per_device if device else ())]
    if not all(report.healthy for report in asked):
        raise typer.Exit(6)


_MARKS = {"ok": "ok", "missing": "--", "wrong": "!!", "note": "  "}


def _print_report(report: Report, title: str, *, brief: bool = False) -> None:
    here = f"   found {report.seen}" if report.seen else ""
    if brief:
        faults = [finding for finding in report.findings if finding.fault]
        state = f"lacks {faults[0].name}: {faults[0].what}" if faults else "ready to build for"
        print(f"{title:<20} {state}{here}")
        return
    print(f"{title}{here}")
    for finding in report.findings:
        print(f"  {_MARKS[finding.state]} {finding.name}: {finding.what}")
        if finding.fault and finding.where:
            print(f"     --> {finding.where}")
        if finding.hint and finding.state != "ok":
            print(f"     hint: {finding.hint}")
    print()


@devices.command("list")
def devices_list(json: Json = False, verbose: Verbose = False) -> None:
    """Every device: its names, what builds for it need, and which one is in this machine."""
    import dataclasses
    import json as format_json

    from uniscale_build.manifests.detection import find_devices
    from uniscale_build.project import find_project

    manifests = find_project().manifests
    seen = find_devices(manifests.devices.values())
    if json:
        told = [{**dataclasses.asdict(item), "seen": seen.get(item.name)}
                for item in manifests.devices.values()]  # fmt: skip
        print(format_json.dumps(told, indent=2, ensure_ascii=False))
        return
    for item in manifests.devices.values():
        names = ", ".join((*item.aliases, *item.names))
        here = f"   found {seen[item.name]}" if item.name in seen else ""
        print(f"{item.name}: {item.title}{here}")
        print(f"    also {names}")
        needs = item.sdk.name if item.sdk else "no SDK"
        print(f"    {needs}; chips by {item.visible or 'a variable that nobody found'}")


@devices.command("schema")
def devices_schema(
    check: Annotated[bool, typer.Option("--check", help="Only compare; write nothing.")] = False,
    verbose: Verbose = False,
) -> None:
    """Write the JSON Schemas of the manifests, for editors, from what reads them."""
    from uniscale_build.bringup import schema
    from uniscale_build.errors import raise_all
    from uniscale_build.project import find_project

    folder = find_project().root / "manifests" / "schema"
    if check:
        raise_all(schema.stale(folder))
        return
    for name in schema.write(folder):
        print(f"wrote manifests/schema/{name}")


def new_device(
    name: Annotated[str, typer.Argument(help="Vendor_Model, e.g. Acme_X1.")],
    title: Annotated[str, typer.Option(help="For people, e.g. 'Acme X1 accelerator'.")],
    vendor: Annotated[str, typer.Option(help="Who makes it.")],
    contact: Annotated[str, typer.Option(help="Who answers for it.")],
    source: Annotated[str, typer.Option(help="Where these facts are from.")],
    label: Annotated[str, typer.Option(help="Of its wheels (default: from the name).")] = "",
    alias: Annotated[list[str] | None, typer.Option(help="Another name; repeat.")] = None,
    node: Annotated[list[str] | None, typer.Option(help="Device file (glob); repeat.")] = None,
    visible: Annotated[str, typer.Option(help="Variable that names its visible chips.")] = "",
    sdk: Annotated[str, typer.Option(help="Name of its SDK.")] = "",
    sdk_root: Annotated[
        list[str] | None, typer.Option(help="VARIABLE=default folder; repeat.")
    ] = None,
    compiler: Annotated[str, typer.Option(help="The SDK's compiler, below bin/.")] = "",
    backend: Annotated[list[str] | None, typer.Option(help="Adapt this; repeat.")] = None,
    verbose: Verbose = False,
) -> None:
    """Write a device's manifest, an adaptation for each backend named, and a test."""
    from uniscale_build.bringup.scaffold import DeviceAnswers, scaffold_device
    from uniscale_build.project import find_project

    answers = DeviceAnswers(
        name, title, vendor, contact, source, label, tuple(alias or ()), tuple(node or ()),
        visible, sdk, tuple(sdk_root or ()), compiler, tuple(backend or ()),
    )  # fmt: skip
    _print_written(scaffold_device(find_project(), answers))
    print(f"next: uniscale-build doctor --device {name}")
    for word in backend or ():
        print(f"      uniscale-build unpatch --backend {word} --device {name}, change what the "
              f"chip needs,\n      then uniscale-build patch --backend {word} --device {name}"
        )  # fmt: skip


def new_backend(
    name: Annotated[str, typer.Argument(help="As upstream writes it.")],
    title: Annotated[str, typer.Option(help="For people.")],
    homepage: Annotated[str, typer.Option(help="Upstream's page.")],
    license: Annotated[str, typer.Option(help="SPDX id, e.g. Apache-2.0.")],  # noqa: A002
    contact: Annotated[str, typer.Option(help="Who answers for the adaptation to cpu.")],
    task: Annotated[list[str], typer.Option("--task", "-t", help="train, serve, infer; repeat.")],
    version: Annotated[str, typer.Option(help="The release to pin.")],
    project: Annotated[str, typer.Option(help="Its name on the package index.")] = "",
    folder: Annotated[Path | None, typer.Option(help="Or a folder with its source.")] = None,
    verbose: Verbose = False,
) -> None:
    """Write a backend's manifest with its pin verified, its adaptation to cpu, and a test."""
    from uniscale_build.bringup.scaffold import BackendAnswers, scaffold_backend
    from uniscale_build.cli.live import reporter
    from uniscale_build.project import find_project
    from uniscale_build.store import Store

    answers = BackendAnswers(
        name, title, homepage, license, contact, tuple(task), version, project, folder
    )
    with reporter() as live:
        written = scaffold_backend(find_project(), Store(), answers, live)
    _print_written(written)
    print(f"next: uniscale-build plan --backend {name} --device cpu")


def _print_written(paths: list[str]) -> None:
    for path in paths:
        print(f"wrote {path}")
