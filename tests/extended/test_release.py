"""The result of deploy/release/build, with the static binary of the other tests. test_release_full.py builds
everything."""

import gzip
import hashlib
import json
import re
import subprocess
import tarfile
import tomllib

import pytest

from files import serving
from podman import DEPLOY, last_stage, static_binary
from release import AMD64, Machine, build, only
from stage import ROOT

# A module of deploy/release, which `release` makes importable.
import image as oci
from project import Project

VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A release for one processor."""
    return build(tmp_path_factory.mktemp("dist"), "--binary", f"{AMD64}={static_binary()}")


@pytest.fixture(scope="module")
def loaded(store, dist):
    """The two images of the release, in podman: {kind: identifier}."""
    archives = {kind: dist / f"sidentity-{VERSION}-image{kind}.tar" for kind in ("", "-debug")}
    return {kind: store("pull", "--quiet", f"oci-archive:{path}", timeout=100) for kind, path in archives.items()}


@pytest.mark.timeout(900)
def test_the_checksums_are_those_of_all_files(dist):
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=dist, check=True)
    named = {line.split()[1] for line in (dist / "SHA256SUMS").read_text().splitlines()}
    assert named == {file.name for file in dist.iterdir()} - {"SHA256SUMS"}
    assert {re.sub(re.escape(VERSION), "V", name) for name in named} == {
        f"sidentity-V-{AMD64}.tar.gz", f"sidentity-V-{AMD64}.cdx.json", "sidentity-V-image.tar", "sidentity-V-image-debug.tar",
        "sidentity_V_amd64.deb", "sidentity-V-1.x86_64.rpm", "install.sh",
    }


@pytest.mark.timeout(600)
def test_a_second_build_is_the_same_byte_by_byte(tmp_path):
    """Tests only the packing, on machines of two names. A script replaces the binary, so that it is quick."""
    script = tmp_path / "sidentity"
    script.write_text(f'#!/bin/sh\nexec {static_binary()} "$@"\n')
    script.chmod(0o755)
    folders = [build(tmp_path / name, "--binary", f"{AMD64}={script}", hostname=name) for name in ("first", "second")]
    sums = [(folder / "SHA256SUMS").read_text() for folder in folders]
    assert sums[0] == sums[1] and sums[0].count("\n") == 7


def test_the_archive_is_complete(dist, tmp_path):
    name = f"sidentity-{VERSION}-{AMD64}"
    with tarfile.open(dist / f"{name}.tar.gz") as tree:
        members = {member.name: member for member in tree.getmembers()}
        tree.extractall(tmp_path, filter="data")
    here = {path.removeprefix(f"{name}/") for path, member in members.items() if not member.isdir()}
    assert {path for path in here if not path.startswith("man/")} == {
        "sidentity", "LICENSE", "README.md", "CHANGELOG.md", "THIRD-PARTY-NOTICES",
        "completions/sidentity.bash", "completions/_sidentity", "completions/sidentity.fish",
    }
    assert "man/sidentity.1" in here and any(path.startswith("man/sidentity-run") for path in here)
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members.values()} == {(0, 0, "", "")}
    assert len({member.mtime for member in members.values()}) == 1
    folder = tmp_path / name
    done = subprocess.run([folder / "sidentity", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == ["sidentity", VERSION]
    notices = (folder / "THIRD-PARTY-NOTICES").read_text()
    for crate in ("aws-lc-sys", "hyper", "rustls", "tikv-jemalloc-sys", "tokio", "webpki-root-certs"):
        assert re.search(rf"^{crate} \d", notices, re.M), crate
    # In a directory of its own, because it is not in Rust.
    assert "Copyright (C) 2002-present Jason Evans" in notices
    assert "Permission is hereby granted" in notices and "criterion" not in notices


def test_the_install_script_of_the_release_installs_its_archive(dist, tmp_path):
    # GitHub's addresses.
    (tmp_path / "releases" / "latest").mkdir(parents=True)
    (tmp_path / "releases" / "latest" / "download").symlink_to(dist)
    with serving(tmp_path / "releases") as address:
        command = ["sh", dist / "install.sh", "--from", f"http://{address}", "--dir", tmp_path / "usr"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"installed sidentity {VERSION} in {tmp_path}/usr/bin" in done.stdout, done.stderr
    done = subprocess.run([tmp_path / "usr/bin/sidentity", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["sidentity", VERSION]
    assert (tmp_path / "usr/share/man/man1/sidentity-run.1").exists()


def test_the_page_and_the_notes_name_the_signer_that_signs():
    workflow = ROOT / ".github" / "workflows" / "release.yml"
    signer = f"https://github.com/sidentity/sidentity/.github/workflows/{workflow.name}@refs/tags/v"
    text = workflow.read_text()
    assert "cosign sign-blob --yes --bundle SHA256SUMS.sigstore.json SHA256SUMS" in text and 'tags: ["v' in text
    for name in ("README.md", "release/notes"):
        page = (DEPLOY / name).read_text()
        assert signer in page and "--bundle SHA256SUMS.sigstore.json" in page, name
        assert "https://token.actions.githubusercontent.com" in page, name


def test_binstall_finds_the_archive_by_its_name(dist):
    about = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
    binstall = about["metadata"]["binstall"]
    settings = [binstall, binstall["overrides"]["x86_64-unknown-linux-musl"]]
    for values in settings:
        url = (values.get("pkg-url") or binstall["pkg-url"]).replace("{ target }", AMD64)
        for key, value in {"repo": about["repository"], "name": "sidentity", "version": VERSION}.items():
            url = url.replace(f"{{ {key} }}", value)
        folder, _, file = url.rpartition("/")
        assert folder == f"https://github.com/sidentity/sidentity/releases/download/v{VERSION}"
        assert (dist / file).exists(), url
        inside = (values.get("bin-dir") or binstall["bin-dir"]).replace("{ target }", AMD64)
        for key, value in {"name": "sidentity", "version": VERSION, "bin": "sidentity", "binary-ext": ""}.items():
            inside = inside.replace(f"{{ {key} }}", value)
        with tarfile.open(dist / file) as tree:
            assert tree.getmember(inside).mode & 0o111


def test_the_bill_of_materials_matches_the_lock_file(dist):
    bill = json.loads((dist / f"sidentity-{VERSION}-{AMD64}.cdx.json").read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "sidentity")
    locked = {(package["name"], package["version"]): package for package in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    listed = {(component["name"], component["version"]) for component in bill["components"]}
    assert listed <= set(locked)
    assert {(package["name"], package["version"]) for package in Project().crates(AMD64)} <= listed
    for component in bill["components"]:
        assert component["purl"].startswith("pkg:cargo/") and component["licenses"]
        (checksum,) = component["hashes"]
        assert checksum["content"] == locked[component["name"], component["version"]]["checksum"]
    assert str(ROOT) not in json.dumps(bill)


def test_the_debian_package_has_a_changelog_in_debians_format(dist, tmp_path):
    subprocess.run(["dpkg-deb", "--extract", only(dist, "*.deb"), tmp_path], check=True)
    docs = tmp_path / "usr" / "share" / "doc" / "sidentity"
    changelog = gzip.decompress((docs / "changelog.gz").read_bytes()).decode()
    title, entry, author = changelog.strip("\n").split("\n\n")
    assert title == f"sidentity ({VERSION}) unstable; urgency=medium"
    assert entry.startswith("  * ")
    assert re.fullmatch(r" -- [^<]+ <\S+@\S+>  \w{3}, \d{2} \w{3} \d{4} [\d:]{8} \+0000", author)
    assert gzip.decompress((docs / "CHANGELOG.md.gz").read_bytes()).startswith(b"# Changelog")


SESSION = """
export DEBIAN_FRONTEND=noninteractive
ip link set lo up
dpkg --install /tmp/files/*.deb
echo "== account"; getent passwd sidentity
echo "== unit"; systemd-analyze verify /usr/lib/systemd/system/sidentity.service 2>&1
echo "== version"; sidentity --version
echo "== man"; man sidentity
echo "== page of a command"; man sidentity-run | head -n 3
echo "== completions"; bash -c '. /usr/share/bash-completion/completions/sidentity; complete -p sidentity'
echo "== start"
setpriv --reuid sidentity --regid sidentity --clear-groups --no-new-privs \
    env -i PATH=/usr/bin NO_GCE_CHECK=true sidentity run --config /etc/sidentity/sidentity.yaml 2> /tmp/log &
pid=$!
until sidentity health; do kill -0 $pid || { cat /tmp/log; exit 1; }; sleep 0.1; done
kill -TERM $pid
wait $pid && echo "ended with 0"
echo "== again, with a changed file"
echo '# mine' >> /etc/sidentity/sidentity.yaml
dpkg --install /tmp/files/*.deb
tail -n 1 /etc/sidentity/sidentity.yaml
echo "== removed"
dpkg --remove sidentity
ls /usr/bin/sidentity /usr/share/doc/sidentity /usr/lib/systemd/system/sidentity.service 2>&1 | grep -c "No such file"
ls /etc/sidentity
echo "== purged"
dpkg --purge sidentity
ls -d /etc/sidentity 2>&1 | grep -c "No such file"
"""


@pytest.mark.timeout(300)
def test_the_debian_package_installs_runs_and_uninstalls(dist, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    (files / "sidentity.deb").write_bytes(only(dist, "*.deb").read_bytes())
    printed = Machine().run(SESSION, files)
    parts = dict(part.split("\n", 1) for part in re.split(r"^== ", printed, flags=re.M)[1:])
    assert parts["account"].startswith("sidentity:") and "nologin" in parts["account"]
    assert parts["unit"].strip() == ""
    assert parts["version"].split()[1] == VERSION
    assert "NAME" in parts["man"] and "sidentity" in parts["man"] and "SYNOPSIS" in parts["man"]
    assert "SIDENTITY-RUN(1)" in parts["page of a command"]
    assert "sidentity" in parts["completions"]
    assert "ended with 0" in parts["start"]
    assert parts["again, with a changed file"].rstrip().endswith("# mine")
    assert parts["removed"].split()[-2:] == ["3", "sidentity.yaml"]
    assert parts["purged"].split()[-1] == "1"


UPGRADE = """
export DEBIAN_FRONTEND=noninteractive
# The machine of the tests may be a container whose policy forbids restarts.
rm -f /usr/sbin/policy-rc.d
mkdir -p /run/systemd/system
printf '#!/bin/sh\\necho "called: systemctl $*"\\n' > /usr/local/bin/systemctl
chmod 755 /usr/local/bin/systemctl
dpkg --install /tmp/files/*.deb
echo "== forbidden"
printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
dpkg --install /tmp/files/*.deb
"""


@pytest.mark.timeout(300)
def test_an_upgrade_restarts_a_running_service_unless_the_policy_forbids_it(dist, tmp_path):
    (tmp_path / "sidentity.deb").write_bytes(only(dist, "*.deb").read_bytes())
    upgraded, forbidden = Machine().run(UPGRADE, tmp_path).split("== forbidden\n")
    restart = "called: systemctl try-restart sidentity.service"
    assert restart in upgraded and restart not in forbidden
    assert "called: systemctl daemon-reload" in forbidden


def test_the_debian_package_describes_itself(dist):
    def field(name):
        return subprocess.run(["dpkg-deb", "--field", only(dist, "*.deb"), name], capture_output=True, text=True, check=True).stdout.strip()

    assert (field("Package"), field("Version"), field("Architecture")) == ("sidentity", VERSION, "amd64")
    # A static binary needs no library, so it installs on every release of Debian and Ubuntu.
    assert field("Depends") == ""
    summary, first = field("Description").splitlines()[:2]
    assert summary.startswith("Google Cloud identity") and first.startswith(" A sidecar proxy")
    control = subprocess.run(
        ["dpkg-deb", "--ctrl-tarfile", only(dist, "*.deb")], capture_output=True, check=True
    ).stdout
    assert b"./conffiles" in control and b"/etc/sidentity/sidentity.yaml" in control


def test_the_debian_package_does_not_start_the_service():
    """Every user of the machine may call with its identity, so the administrator must decide."""
    scripts = [path.read_text() for path in (DEPLOY / "release" / "scripts").iterdir()]
    calls = [call for text in scripts for call in re.findall(r"^\s*(?:systemctl|deb-systemd-invoke) (\S+)", text, re.M)]
    assert sorted(set(calls)) == ["daemon-reload", "disable", "try-restart"]


def test_the_rpm_has_the_same_files(dist):
    def query(*args):
        done = subprocess.run(["rpm", "--query", "--package", only(dist, "*.rpm"), *args], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    assert query("--queryformat", "%{NAME} %{VERSION} %{ARCH} %{LICENSE}") == [f"sidentity {VERSION} x86_64 Apache-2.0"]
    files = set(query("--list"))
    assert {"/usr/bin/sidentity", "/usr/lib/systemd/system/sidentity.service", "/usr/share/man/man1/sidentity.1.gz"} <= files
    assert query("--configfiles") == ["/etc/sidentity/sidentity.yaml"]
    assert set(query("--docfiles")) == {path for path in files if path.startswith(("/usr/share/man/", "/usr/share/doc/"))}
    assert "/usr/share/man/man1/sidentity-run.1.gz" in query("--docfiles")
    assert query("--licensefiles") == [f"/usr/share/licenses/sidentity/{name}" for name in ("LICENSE", "THIRD-PARTY-NOTICES")]
    assert "/usr/share/doc/sidentity/copyright" not in files
    summary, first = query("--queryformat", "%{SUMMARY}\n%{DESCRIPTION}")[:2]
    assert summary.startswith("Google Cloud identity") and first.startswith("A sidecar proxy")
    assert query("--queryformat", "%{BUILDHOST}") == ["localhost"]
    title, entry = filter(None, query("--changelog"))
    assert re.fullmatch(rf"\* \w{{3}} \w{{3}} \d{{2}} \d{{4}} [^<]+ <\S+@\S+> - {re.escape(VERSION)}-1", title), title
    assert entry.startswith("- The changes are listed in CHANGELOG.md.gz")
    assert not [line for line in query("--requires") if not line.startswith(("rpmlib(", "/bin/sh"))]
    done = subprocess.run(["rpm", "--checksig", "--nosignature", only(dist, "*.rpm")], capture_output=True, text=True)
    assert done.returncode == 0 and "digests OK" in done.stdout, done.stdout


def test_the_image_runs_the_demo_and_matches_the_dockerfile(podman, image, loaded):
    hardened = ["--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
    # Started like a beginner, like an operator, and like Docker, which adds no /tmp.
    for options in ([], hardened, [*hardened, "--read-only-tmpfs=false"]):
        done = podman("run", "--rm", "--network", "none", *options, loaded[""], "demo", "--once", check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    released, built = (json.loads(podman("inspect", "--type", "image", name))[0]["Config"] for name in (loaded[""], image))
    for key in ("User", "ExposedPorts", "Entrypoint", "Cmd"):
        assert released[key] == built[key], key
    assert released["Labels"].items() >= {k: v for k, v in built["Labels"].items() if k.startswith("org.opencontainers") and "revision" not in k}.items()
    stage = last_stage((DEPLOY / "Dockerfile").read_text())
    assert re.search(r"HEALTHCHECK --interval=30s --timeout=6s --start-period=2s", stage)
    assert [oci.CONFIG["Healthcheck"][key] // 10**9 for key in ("Interval", "Timeout", "StartPeriod")] == [30, 6, 2]


def test_the_debug_image_has_a_shell_and_the_same_program(podman, loaded):
    def sh(script):
        return podman("run", "--rm", "--network", "none", "--read-only", "--cap-drop", "all", "--entrypoint", "/bin/sh", loaded["-debug"], "-c", script)

    assert sh("id -u; sidentity --version; ls /bin/busybox /usr/share/doc/busybox-static").split() == [
        "65532", "sidentity", VERSION, "/bin/busybox", "/usr/share/doc/busybox-static:", "copyright",
    ]
    # Each link leads to a program.
    assert set(oci.APPLETS) <= set(sh("busybox --list").split())
    done = podman("run", "--rm", "--network", "none", loaded["-debug"], "demo", "--once", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_layout_names_every_blob_by_its_content(dist):
    for archive in dist.glob("*-image*.tar"):
        with tarfile.open(archive) as tree:
            blobs = {m.name: tree.extractfile(m).read() for m in tree.getmembers() if m.isfile()}
        todo = json.loads(blobs["index.json"])["manifests"]
        seen = {"index.json", "oci-layout"}
        while todo:
            descriptor = todo.pop()
            name = descriptor["digest"].replace("sha256:", "blobs/sha256/")
            content = blobs[name]
            assert hashlib.sha256(content).hexdigest() in name and len(content) == descriptor["size"]
            seen.add(name)
            if descriptor["mediaType"].endswith("+json"):
                value = json.loads(content)
                todo += value.get("manifests", []) + value.get("layers", []) + ([value["config"]] if "layers" in value else [])
        assert seen == set(blobs)


@pytest.mark.parametrize("kind", ["", "-debug"])
def test_the_image_has_the_licences_and_podman_loads_it_by_its_name(podman, dist, kind):
    archive = dist / f"sidentity-{VERSION}-image{kind}.tar"
    podman("load", "--quiet", "--input", archive, timeout=100)
    name = f"ghcr.io/sidentity/sidentity:{VERSION}{kind}"
    export = podman.folder / "export.tar"
    podman("export", "--output", export, podman("create", name))
    with tarfile.open(export) as files:
        licence, notices = (files.extractfile(f"usr/share/doc/sidentity/{file}").read() for file in ("LICENSE", "THIRD-PARTY-NOTICES"))
    assert licence == (ROOT / "LICENSE").read_bytes() and b"\nhyper 1." in notices


def test_the_page_names_the_source_of_the_shell():
    pins = (DEPLOY / "release" / "busybox.sha256").read_text()
    # Without the number of a rebuild, which has the same source.
    (version,) = {found.replace("%3a", ":") for found in re.findall(r"busybox-static_([^_]+?)(?:\+b\d+)?_", pins)}
    assert f"version `{version}`" in (DEPLOY / "README.md").read_text()


def test_the_notes_and_the_formula_match_the_release(dist, tmp_path):
    def program(name, *args):
        return subprocess.run([ROOT / "deploy" / "release" / name, *args], capture_output=True, text=True)

    assert program("notes", "99.0.0").returncode != 0
    notes = program("notes", VERSION)
    assert notes.returncode == 0 and f"refs/tags/v{VERSION}" in notes.stdout and "\n### " in notes.stdout, notes.stderr
    sums = tmp_path / "SHA256SUMS"
    targets = ["aarch64-apple-darwin", "x86_64-apple-darwin", "aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"]
    sums.write_text("".join(f"{index:064x}  sidentity-{VERSION}-{target}.tar.gz\n" for index, target in enumerate(targets)))
    formula = program("formula", sums)
    assert formula.returncode == 0 and formula.stdout.count("sha256 ") == 4
    for index, target in enumerate(targets):
        assert re.search(rf'url "https://github.com/\S+/v{VERSION}/sidentity-{VERSION}-{target}.tar.gz"\n\s+sha256 "{index:064x}"', formula.stdout)
    assert program("formula", dist / "SHA256SUMS").returncode != 0
