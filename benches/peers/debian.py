"""Unpacks programs of Debian sid, with their libraries, beside the packages of this machine."""

import hashlib
import http.client
import lzma
import re
import shutil
import subprocess
import urllib.request

MIRROR = "http://deb.debian.org/debian"
# The package debian-archive-keyring is on every Debian.
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
# What a machine of another system, or without a network, raises.
ERRORS = (OSError, http.client.HTTPException, lzma.LZMAError, LookupError, ValueError)


def unpack(programs, folder, patchelf):
    """Replaces the folder by the newest versions, unless it has them already."""
    index = f"main/binary-{_run('dpkg', '--print-architecture').decode().strip()}/Packages.xz"
    digest = re.findall(rf"^ (\w{{64}}) +\d+ {index}$", _release(), re.MULTILINE)[0]
    marker = folder / ".index"
    if marker.exists() and marker.read_text() == digest:
        return
    text = lzma.decompress(_fetch(f"dists/sid/{index}", digest)).decode()
    packages = {stanza.partition("\n")[0].removeprefix("Package: "): stanza for stanza in text.split("\n\n")}
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name in _with_libraries(programs, packages):
        archive = fresh / f"{name}.deb"
        archive.write_bytes(_fetch(_field(packages[name], "Filename"), _field(packages[name], "SHA256")))
        _run("dpkg-deb", "-x", archive, fresh)
        archive.unlink()
    [libc] = fresh.rglob("libc.so.6")
    for name in programs:
        _relink(fresh / "usr/sbin" / name, folder / libc.parent.relative_to(fresh), patchelf)
    (fresh / ".index").write_text(digest)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def _release():
    """Returns the text that Debian's keys have signed. It has the digest of the index, which has those of the packages."""
    return _run("gpgv", "--quiet", "--keyring", KEYS, "--output", "-", given=_fetch("dists/sid/InRelease")).decode()


def _with_libraries(names, packages):
    """Adds the libraries that these packages need, and the libraries that those need."""
    found, queue = [], list(names)
    while queue:
        name = queue.pop()
        if name in found or name not in packages:
            continue
        # The rest is for the installation: users, services, and questions.
        if name not in names and _field(packages[name], "Section") != "libs":
            continue
        found.append(name)
        needed = [_field(packages[name], key) for key in ("Depends", "Pre-Depends")]
        # The first of several alternatives, without its version.
        queue += re.findall(r"(?:^|, *)([a-z0-9][a-z0-9.+-]*)", ", ".join(needed))
    return found


def _field(stanza, name):
    found = re.search(rf"^{name}: (.*)$", stanza, re.MULTILINE)
    return found[1] if found else ""


def _relink(program, libraries, patchelf):
    """Makes the program load only unpacked libraries. Started by their loader instead, it would have the loader's name."""
    loader = _run(patchelf, "--print-interpreter", program).decode().strip().rpartition("/")[2]
    # Unlike a RUNPATH, an RPATH also applies to the libraries of libraries.
    _run(patchelf, "--set-interpreter", libraries / loader, "--force-rpath", "--set-rpath", libraries, program)


def _fetch(path, digest=None):
    with urllib.request.urlopen(f"{MIRROR}/{path}", timeout=60) as answer:
        data = answer.read()
    if digest and hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{path} does not have the digest {digest}")
    return data


def _run(*command, given=b""):
    done = subprocess.run([str(part) for part in command], input=given, capture_output=True, check=False)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["failed"]
        raise OSError(f"`{command[0]}`: {reason[0]}")
    return done.stdout
