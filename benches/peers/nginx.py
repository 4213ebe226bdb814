"""The command of an nginx whose configuration is a template of this folder."""

import re

import install
from install import HERE


def command(template, file, words):
    """Writes the configuration, with each `@WORD@` replaced."""
    program = install.find("nginx")
    text = (HERE / template).read_text()
    if _version(program) < (1, 25, 1):
        text = re.sub(r"(listen [^;]*);\s*http2 on;", r"\1 http2;", text)
    for word, value in words.items():
        text = text.replace(f"@{word}@", str(value))
    file.write_text(text)
    return [program, "-c", file, "-e", "stderr"]


def _version(program):
    return tuple(int(part) for part in re.findall(r"\d+", install.version([program, "-v"])))
