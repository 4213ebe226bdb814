""".github: checks workflows with actionlint and zizmor, forms with their schemas, and their statements."""

import os
import re
import subprocess

import pytest
import yaml

from stage import ROOT, WORK

FOLDER = ROOT / ".github"
WORKFLOWS = sorted((FOLDER / "workflows").glob("*.yml"))
PROGRAMS = WORK / "venv" / "bin"

workflows = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def lint(program, *args):
    env = os.environ | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    return subprocess.run([PROGRAMS / program, *args], cwd=ROOT, env=env, capture_output=True, text=True, timeout=100)


def test_actionlint_finds_nothing():
    done = lint("actionlint", "-color=false", *WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_finds_nothing():
    done = lint("zizmor", "--offline", "--pedantic", FOLDER)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_linters_find_an_injection_and_an_unpinned_action(tmp_path):
    text = WORKFLOWS[0].read_text()
    wrong = tmp_path / ".github" / "workflows" / "ci.yml"
    wrong.parent.mkdir(parents=True)
    wrong.write_text(re.sub(r"@[0-9a-f]{40} # v\d", "@v1", text).replace(".ci/run $STEPS", "echo ${{ github.head_ref }}"))
    done = lint("zizmor", "--offline", "--pedantic", tmp_path)
    assert done.returncode != 0 and "unpinned-uses" in done.stdout and "template-injection" in done.stdout
    assert lint("actionlint", "-color=false", wrong).returncode != 0


@pytest.mark.parametrize("name, schema", [
    ("ISSUE_TEMPLATE/bug.yml", "github-issue-forms"), ("ISSUE_TEMPLATE/feature.yml", "github-issue-forms"),
    ("ISSUE_TEMPLATE/config.yml", "github-issue-config"), ("dependabot.yml", "dependabot"),
    *((f"workflows/{path.name}", "github-workflows") for path in WORKFLOWS),
])
def test_github_accepts_the_file(name, schema):
    done = lint("check-jsonschema", "--builtin-schema", f"vendor.{schema}", FOLDER / name)
    assert done.returncode == 0, done.stdout + done.stderr


@workflows
def test_every_action_is_pinned_by_its_commit_with_the_version_beside_it(path):
    for line in path.read_text().splitlines():
        if found := re.match(r"\s*(?:- )?uses: (\S+)(.*)", line):
            if not found[1].startswith("./"):
                assert re.fullmatch(r"[\w-]+/[\w./-]+@[0-9a-f]{40}", found[1]), line
                assert re.fullmatch(r" # v\d+\.\d+\.\d+", found[2]), line
    for image in re.findall(r"(?:container|image): (docker\S+)", path.read_text()):
        assert re.search(r"@sha256:[0-9a-f]{64}$", image), image


@workflows
def test_every_job_has_the_permissions_that_it_names_and_no_others(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        writes = {scope for scope, level in job["permissions"].items() if level == "write"}
        publishes = {
            "release.yml": {
                "collect": {"id-token", "attestations"}, "image": {"packages", "id-token", "attestations"},
                "github": {"contents"}, "crates-io": {"id-token"},
            },
            "scorecard.yml": {"scorecard": {"security-events", "id-token"}},
            "site.yml": {"site": {"contents"}},
        }  # fmt: skip
        assert writes == publishes.get(path.name, {}).get(name, set()), name


def test_ci_runs_every_step_of_the_script_and_no_other():
    workflow = yaml.safe_load((FOLDER / "workflows" / "ci.yml").read_text())
    steps = " ".join(row["steps"] for row in workflow["jobs"]["ci"]["strategy"]["matrix"]["include"])
    script = (ROOT / ".ci" / "run").read_text()
    assert steps == re.search(r"\|\| set -- (.+)", script)[1]


def test_the_image_of_the_builds_is_that_of_the_dockerfile():
    (image,) = re.findall(r"^ARG RUST_IMAGE=(\S+)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.M)
    assert set(re.findall(r"docker\.io/library/rust\S+", "".join(path.read_text() for path in WORKFLOWS))) == {image}
    # The promised minimum version is at most the version that builds.
    lowest = re.search(r'^rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    built = re.search(r"rust:([\d.]+)-", image)[1]
    assert [int(part) for part in lowest.split(".")] <= [int(part) for part in built.split(".")]


def test_a_bug_report_asks_for_the_version_the_configuration_and_the_decision():
    form = yaml.safe_load((FOLDER / "ISSUE_TEMPLATE" / "bug.yml").read_text())
    required = [part["attributes"]["label"] for part in form["body"] if part.get("validations", {}).get("required")]
    for command in ("sidentity --version", "sidentity check", "sidentity explain"):
        assert any(command in label for label in required), command


def test_paths_of_owners_and_updates_exist():
    for line in (FOLDER / "CODEOWNERS").read_text().splitlines():
        if line and not line.startswith(("#", "*")):
            assert (ROOT / line.split()[0].strip("/")).exists(), line
    for ecosystem, folder in updated():
        assert (ROOT / folder.strip("/")).is_dir(), (ecosystem, folder)


def updated():
    """Returns the ecosystems and folders that Dependabot updates."""
    updates = yaml.safe_load((FOLDER / "dependabot.yml").read_text())["updates"]
    return {(u["package-ecosystem"], folder) for u in updates for folder in u.get("directories") or [u["directory"]]}


# The lists of dependencies that Dependabot reads, by the names of their files, and the ecosystem.
LISTS = {
    r"Cargo\.toml": "cargo",
    r"(.*[_-])?requirements.*\.(txt|in)|pyproject\.toml|setup\.(py|cfg)|Pipfile": "pip",
    r"package\.json": "npm",
    r"go\.mod": "gomod",
    r"pom\.xml": "maven",
    r"(build|settings)\.gradle(\.kts)?": "gradle",
    r".*\.(cs|fs|vb)proj|packages\.config|Directory\.Packages\.props": "nuget",
    r"Gemfile|.*\.gemspec": "bundler",
    r"composer\.json": "composer",
    r"mix\.exs": "mix",
    r"pubspec\.yaml": "pub",
    r"Chart\.yaml": "helm",
    r"\.gitmodules": "gitsubmodule",
    r"\.pre-commit-config\.yaml": "pre-commit",
    r"devcontainer\.json": "devcontainers",
    r"rust-toolchain(\.toml)?": "rust-toolchain",
    r"(Dockerfile|Containerfile)(\.(?!dockerignore).+)?": "docker",
    r"(docker-)?compose(\..+)?\.ya?ml": "docker-compose",
}


def required(files):
    """Returns the ecosystems and folders that these files need, by their names and content."""
    for file in files:
        name, folder = file.name, f"/{file.parent.relative_to(ROOT)}".removesuffix("/.") or "/"
        for pattern, ecosystem in LISTS.items():
            if re.fullmatch(pattern, name):
                yield ecosystem, folder
        if file.suffix == ".tf" and "required_providers" in file.read_text():
            yield "terraform", folder
        if file.suffix in (".yml", ".yaml") and re.search(r"^\s*(- )?uses: [\w-]+/", file.read_text(), re.M):
            yield "github-actions", "/"
        # A Kubernetes manifest with an image of others at a fixed version.
        if file.suffix in (".yml", ".yaml") and re.search(r"^apiVersion: ", file.read_text(), re.M):
            if re.search(r"^\s*(- )?image: (?!\S*(/sidentity|example-project))[\w.-]+/\S+", file.read_text(), re.M):
                yield "docker", folder


def listed_files():
    done = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in filter(None, done.stdout.split("\0")) if (ROOT / name).is_file()]


def test_updates_cover_every_list_of_dependencies_and_no_other():
    needed = set(required(listed_files()))
    assert needed == updated(), f"missing: {needed - updated()}, superfluous: {updated() - needed}"


def test_a_new_list_of_dependencies_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("test_github.ROOT", tmp_path)
    files = {
        "clients/go.mod": "gomod", "clients/pom.xml": "maven", "clients/App.csproj": "nuget", "clients/Gemfile": "bundler",
        "docs/recipes/dev-requirements.txt": "pip", "deploy/Dockerfile.debug": "docker", "package.json": "npm",
    }
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = set(required([tmp_path / name for name in files]))
    assert found == {(ecosystem, f"/{name.rpartition('/')[0]}") for name, ecosystem in files.items()}
