"""deploy/install, against a server that has a stand-in of each archive. Also the checks of all shell scripts."""

import hashlib
import io
import re
import shutil
import subprocess
import tarfile

import pytest

from files import serving
from recipes import free_port
from stage import ROOT
from release import AMD64, ARM64

SCRIPT = ROOT / "deploy" / "install"
PROGRAM = """#!/bin/sh
case "$*" in
    --version) echo "sidentity {version} for {target}" ;;
    *) exit 64 ;;
esac
"""
PAGES = ["man/sidentity.1", "man/sidentity-run.1", "completions/sidentity.bash", "completions/_sidentity", "completions/sidentity.fish"]
INSTALLED = {
    "bin/sidentity": 0o755, "share/man/man1/sidentity.1": 0o644, "share/man/man1/sidentity-run.1": 0o644,
    "share/bash-completion/completions/sidentity": 0o644, "share/zsh/site-functions/_sidentity": 0o644,
    "share/fish/vendor_completions.d/sidentity.fish": 0o644,
}


def archive(version, target):
    name = f"sidentity-{version}-{target}"
    files = {"sidentity": PROGRAM.format(version=version, target=target)} | {page: f"{page} {version}\n" for page in PAGES}
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w:gz") as tree:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{name}/{path}")
            member.size, member.mode = len(text.encode()), 0o755 if path == "sidentity" else 0o644
            tree.addfile(member, io.BytesIO(text.encode()))
    return f"{name}.tar.gz", spool.getvalue()


@pytest.fixture
def releases(tmp_path):
    """The addresses of GitHub's releases: 0.2.0, and 0.3.0 as the latest. Gives the folder and the URL."""
    folder = tmp_path / "releases"
    for place, version in {"download/v0.2.0": "0.2.0", "download/v0.3.0": "0.3.0", "latest/download": "0.3.0"}.items():
        (folder / place).mkdir(parents=True)
        sums = [f"{'0' * 64}  sidentity-{version}-1.x86_64.rpm\n", f"{'0' * 64}  sidentity-{version}-{AMD64}.cdx.json\n"]
        for target in (AMD64, ARM64, "aarch64-apple-darwin"):
            name, content = archive(version, target)
            (folder / place / name).write_bytes(content)
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
        (folder / place / "SHA256SUMS").write_text("".join(sums))
    with serving(folder) as address:
        yield folder, f"http://{address}"


@pytest.fixture
def install(releases, tmp_path):
    """Runs the script. `system` and `machine` are what uname says, and `without` are programs that it does not find."""

    def run(*args, system="Linux", machine="x86_64", without=(), script=SCRIPT, cwd=None, **variables):
        programs = tmp_path / "programs"
        shutil.rmtree(programs, ignore_errors=True)
        programs.mkdir()
        (programs / "uname").write_text(f'#!/bin/sh\ncase "$1" in -s) echo {system} ;; -m) echo {machine} ;; esac\n')
        (programs / "uname").chmod(0o755)
        for name in "basename cat chmod cp curl cut dirname grep gzip id mkdir mktemp mv rm sed sh sha256sum tar wget".split():
            if name not in without:
                (programs / name).symlink_to(shutil.which(name))
        temporary = tmp_path / "temporary"
        temporary.mkdir(exist_ok=True)
        env = {"PATH": str(programs), "HOME": str(tmp_path / "home"), "TMPDIR": str(temporary)}
        env = {name: value for name, value in (env | variables).items() if value is not None}
        command = [shutil.which("sh"), script, "--from", releases[1], *args]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, cwd=cwd)
        # One line says what failed. Messages of other programs do not appear.
        assert done.returncode == 0 or done.stderr.startswith("install.sh: ") and done.stderr.count("\n") == 1 or script != SCRIPT, done.stderr
        assert not list(temporary.iterdir()), "files are left behind"
        return done

    return run


def files(folder):
    return {str(file.relative_to(folder)): file.stat().st_mode & 0o777 for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("without", [(), ("curl",), ("wget",)])
def test_the_latest_release_is_installed_with_man_pages_and_completions(install, tmp_path, without):
    done = install("--dir", tmp_path / "usr", without=without)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "usr") == INSTALLED
    assert f"installed sidentity 0.3.0 for {AMD64} in {tmp_path}/usr/bin" in done.stdout
    assert f'export PATH="{tmp_path}/usr/bin:$PATH"' in done.stdout
    assert (tmp_path / "usr/share/man/man1/sidentity-run.1").read_text() == "man/sidentity-run.1 0.3.0\n"


@pytest.mark.parametrize("system, machine, target", [
    ("Linux", "x86_64", AMD64), ("Linux", "aarch64", ARM64), ("Linux", "arm64", ARM64), ("Darwin", "arm64", "aarch64-apple-darwin"),
])
def test_the_archive_of_this_machine_is_chosen(install, tmp_path, system, machine, target):
    done = install("--dir", tmp_path / "usr", system=system, machine=machine)
    assert done.returncode == 0 and f"installed sidentity 0.3.0 for {target} " in done.stdout, done.stderr


@pytest.mark.parametrize("mirror", ["http://localhost:x@192.0.2.2:80", "http://127.0.0.1:80@example.com", "https://github.com@example.com"])
def test_a_mirror_with_user_info_is_refused(install, tmp_path, mirror):
    done = install("--dir", tmp_path / "usr", "--from", mirror)
    assert done.returncode == 1 and f"'{mirror}' contains an @" in done.stderr, done.stderr
    assert not (tmp_path / "usr").exists()


@pytest.mark.parametrize("path, message", [
    ("bin/sidentity/", "bin/sidentity' is a directory"), ("bin", "bin' cannot be written"), ("share", "share' cannot be written"),
])
def test_a_path_in_the_way_is_named_before_anything_is_installed(install, tmp_path, path, message):
    way = tmp_path / "usr" / path
    if path.endswith("/"):
        way.mkdir(parents=True)
    else:
        way.parent.mkdir(parents=True)
        way.write_text("")
    before = files(tmp_path / "usr")
    done = install("--dir", tmp_path / "usr")
    assert done.returncode == 1 and message in done.stderr and "installed" not in done.stdout, done.stderr
    assert files(tmp_path / "usr") == before


@pytest.mark.parametrize("system, machine", [("FreeBSD", "amd64"), ("Linux", "riscv64"), ("Darwin", "x86_64")])
def test_a_machine_without_an_archive_is_named(install, tmp_path, system, machine):
    done = install("--dir", tmp_path / "usr", system=system, machine=machine)
    assert done.returncode == 1 and "no archive for" in done.stderr, done.stderr
    assert not (tmp_path / "usr").exists()


@pytest.mark.parametrize("args", [["--version", "0.2.0"], ["--version", "v0.2.0"], ["--version=0.2.0"], ["--version=v0.2.0"]])
def test_a_named_version_replaces_the_installed_one(install, tmp_path, args):
    assert install("--dir", tmp_path / "usr").returncode == 0
    done = install("--dir", tmp_path / "usr", *args)
    assert done.returncode == 0 and "installed sidentity 0.2.0 " in done.stdout, done.stderr
    assert files(tmp_path / "usr") == INSTALLED


@pytest.mark.parametrize("args", [["--version", "latest"], ["--version=latest"]])
def test_latest_is_a_version(install, tmp_path, args):
    done = install("--dir", tmp_path / "usr", *args)
    assert done.returncode == 0 and "installed sidentity 0.3.0 " in done.stdout, done.stderr


@pytest.mark.parametrize("directory, place", [
    ("usr", "work/usr"), ("./usr", "work/usr"), ("../usr", "work/../usr"), (".", "work/."), ("~", "home"), ("~/usr", "home/usr"),
    ("~/a b", "home/a b"),
])  # fmt: skip
@pytest.mark.parametrize("joined", [False, True])
def test_a_relative_directory_and_a_tilde_are_expanded(install, tmp_path, directory, place, joined):
    (tmp_path / "work").mkdir()
    done = install(*([f"--dir={directory}"] if joined else ["--dir", directory]), cwd=tmp_path / "work")
    assert done.returncode == 0 and f" in {tmp_path}/{place}/bin" in done.stdout, done.stderr
    assert files(tmp_path / place) == INSTALLED
    assert not list((tmp_path / "work").glob("~*"))


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_a_user_without_a_home_directory_is_told_to_choose_one(install, tmp_path, home):
    script = tmp_path / "script"
    script.write_text(SCRIPT.read_text().replace("$(id -u)", "1000"))
    for args in ([], ["--dir", "~/usr"]):
        done = install(*args, script=script, cwd=tmp_path, HOME=home)
        assert done.returncode == 1 and not (tmp_path / "usr").exists()
        assert done.stderr == "install.sh: HOME is not set to a path: choose a directory with --dir, such as --dir /usr/local\n"
    assert install("--dir", tmp_path / "usr", script=script, HOME=home).returncode == 0


def test_a_temporary_directory_that_cannot_be_made_is_reported(install, tmp_path):
    done = install("--dir", tmp_path / "usr", TMPDIR="/proc/nowhere")
    assert done.returncode == 1 and "set TMPDIR to a directory that you may write" in done.stderr


def test_an_archive_with_another_checksum_is_not_installed(install, releases, tmp_path):
    (file,) = (releases[0] / "latest" / "download").glob(f"*{AMD64}.tar.gz")
    file.write_bytes(archive("0.2.0", AMD64)[1])
    done = install("--dir", tmp_path / "usr")
    assert done.returncode == 1 and "but SHA256SUMS says" in done.stderr and "nothing was installed" in done.stderr
    assert not (tmp_path / "usr").exists()


@pytest.mark.parametrize("damage, message", [
    (lambda content: content[: len(content) // 2], "cannot be unpacked ("), (lambda content: b"<html>", "cannot be unpacked ("),
    (lambda content: archive("0.2.0", AMD64)[1], "has no 'sidentity'"), (lambda content: b"", "cannot be unpacked ("),
])  # fmt: skip
def test_a_damaged_archive_is_named_with_where_others_are(install, releases, tmp_path, damage, message):
    folder = releases[0] / "latest" / "download"
    name, content = archive("0.3.0", AMD64)
    content = damage(content)
    (folder / name).write_bytes(content)
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
    done = install("--dir", tmp_path / "usr")
    assert done.returncode == 1 and f"{releases[1]}/latest/download/{name} {message}" in done.stderr, done.stderr
    assert f"nothing was installed, {releases[1]} lists other releases" in done.stderr
    assert not (tmp_path / "usr").exists()


@pytest.mark.parametrize("without", [(), ("curl",)])
def test_an_unknown_version_is_named_with_the_list_of_releases(install, releases, tmp_path, without):
    done = install("--dir", tmp_path / "usr", "--version", "9.9.9", without=without)
    assert done.returncode == 1 and f"cannot download {releases[1]}/download/v9.9.9/SHA256SUMS (" in done.stderr
    assert done.stderr.endswith(f"): {releases[1]} lists the releases\n") and ("404" in done.stderr or without), done.stderr


def test_a_release_without_an_archive_for_this_machine_is_named(install, releases, tmp_path):
    (releases[0] / "latest" / "download" / "SHA256SUMS").write_text("<html>\n")
    done = install("--dir", tmp_path / "usr")
    assert done.returncode == 1 and f"names no archive for {AMD64}: {releases[1]} lists the releases" in done.stderr


def test_a_server_that_does_not_answer_is_named(install, tmp_path):
    done = install("--from", f"http://127.0.0.1:{free_port()}", "--dir", tmp_path / "usr")
    assert done.returncode == 1 and "/latest/download/SHA256SUMS (curl: (7) " in done.stderr, done.stderr


def test_a_program_that_does_not_run_here_is_not_installed(install, releases, tmp_path, monkeypatch):
    monkeypatch.setattr("test_install.PROGRAM", "#!/nowhere/sh\n")
    folder = releases[0] / "latest" / "download"
    name, content = archive("0.3.0", AMD64)
    (folder / name).write_bytes(content)
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
    done = install("--dir", tmp_path / "usr")
    assert done.returncode == 1 and "does not run on this machine" in done.stderr
    assert not (tmp_path / "usr").exists()


@pytest.mark.parametrize("args, message", [
    (["--version"], "--version needs a value"), (["--version", "../1"], "is not a version"), (["--version", "v"], "'' is not a version"),
    (["--version", ""], "the value of --version is empty"), (["--version="], "the value of --version is empty"),
    (["--dir", ""], "the value of --dir is empty"), (["--dir="], "the value of --dir is empty"), (["--from="], "the value of --from is empty"),
    (["--dir", "--version", "0.2.0"], "--dir needs a value, not '--version'"), (["--dir", "~jane/x"], "names the home directory of another user"),
    (["0.2.0"], "'0.2.0' is not an option"), (["--versions=1"], "'--versions=1' is not an option"),
    (["--prefix", "/usr"], "'--prefix' is not an option: see --help"), (["--from", "http://mirror.example"], "must be served over TLS"),
    (["--from", "file:///srv"], "is not an https:// URL"), (["--dir", "/proc/nowhere"], "cannot be written: choose another directory"),
])
def test_a_wrong_option_is_named_with_what_to_do(install, args, message):
    done = install(*args)
    assert done.returncode == 1 and message in done.stderr, done.stderr


def test_a_machine_without_a_tool_is_told_which(install, tmp_path):
    messages = {("curl", "wget"): "neither curl nor wget", ("sha256sum",): "neither sha256sum nor shasum", ("tar",): "tar is not installed"}
    for without, message in messages.items():
        done = install("--dir", tmp_path / "usr", without=without)
        assert done.returncode == 1 and message in done.stderr and not (tmp_path / "usr").exists(), done.stderr


def test_a_script_that_was_cut_off_does_nothing(install, tmp_path):
    lines = SCRIPT.read_text().splitlines(keepends=True)
    cut = tmp_path / "cut"
    for count in range(1, len(lines) - 1):
        cut.write_text("".join(lines[:count]))
        # A syntax error, or functions that nothing calls.
        install("--dir", tmp_path / "usr", script=cut)
        assert not (tmp_path / "usr").exists(), lines[count - 1]


def test_help_names_every_option(install):
    done = install("--help")
    options = set(re.findall(r"^            (--\w+)(?: \||\))", SCRIPT.read_text(), re.M))
    assert done.returncode == 0 and options and all(option in done.stdout for option in options | {"--help"})


@pytest.mark.parametrize("user, folder", [("1000", "home/.local"), ("0", None)])
def test_the_directory_is_that_of_the_user(install, tmp_path, user, folder):
    # As root it would be /usr/local, so the script only shows where.
    script = tmp_path / "script"
    script.write_text(SCRIPT.read_text().replace("$(id -u)", user).replace('    target="$(target)"', '    echo "$dir"; exit 0', 1))
    wanted = str(tmp_path / folder) if folder else "/usr/local"
    assert install(script=script).stdout.strip() == wanted


def scripts():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, listed):
        path = ROOT / name
        if path.is_file() and re.match(rb"#!.*\b(ba)?sh\n", path.read_bytes()[:40]):
            yield name


def test_shellcheck_finds_nothing_in_any_script():
    names = list(scripts())
    assert "deploy/install" in names and len(names) > 8
    done = subprocess.run(["shellcheck", "--severity=style", *names], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
