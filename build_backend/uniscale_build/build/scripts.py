"""Scripts that start with the path of the interpreter that built them, made to start anywhere."""

from __future__ import annotations

import re

# The first line of a script that runs with the Python that is first on PATH.
ANYWHERE = b"#!/usr/bin/env python3\n"

_DIRECT = re.compile(rb"#![ \t]*/[^\n]*?/(?:python|pypy)[0-9.t]*(?:[ \t][^\n]*)?\n")
# What installers write when the path is long or holds a space: a shell line that Python skips.
_SHELL = re.compile(rb"#!/bin/sh\n'''exec' [^\n]*\n' '''\n")


def relocatable(data: bytes) -> bytes:
    """``data`` with a first line that finds Python on PATH, when it names one by absolute path.

    Everything else comes back as it is: ``#!/usr/bin/env`` lines, shell scripts, programs.
    """
    for form in (_SHELL, _DIRECT):
        found = form.match(data)
        if found is not None:
            return ANYWHERE + data[found.end() :]
    return data
