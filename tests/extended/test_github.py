""".github: checks workflows with actionlint and zizmor, forms with their schemas, and their statements."""

import json
import os
import re
import shutil
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
    *((f"ISSUE_TEMPLATE/{name}.yml", "github-issue-forms") for name in ("bug", "feature", "question")),
    ("ISSUE_TEMPLATE/config.yml", "github-issue-config"), ("dependabot.yml", "dependabot"),
    *((f"workflows/{path.name}", "github-workflows") for path in WORKFLOWS),
])
def test_github_accepts_the_file(name, schema):
    done = lint("check-jsonschema", "--builtin-schema", f"vendor.{schema}", FOLDER / name)
    assert done.returncode == 0, done.stdout + done.stderr


TAG, COMMIT, OBJECT = "v1.2.3", "c" * 40, "b" * 40


@pytest.fixture
def tag_check(tmp_path):
    """Runs the step of tag.yml with these answers of GitHub, and returns its status and output."""
    (step,) = yaml.safe_load((FOLDER / "workflows" / "tag.yml").read_text())["jobs"]["tag"]["steps"]
    gh = tmp_path / "gh"
    gh.write_text('#!/bin/sh\n[ "$1 $3" = "api --jq" ] && exec jq --raw-output "$4" "$ANSWERS/$(echo "$2" | tr / _)"\n')
    gh.chmod(0o755)

    def run(kind="tag", status="identical", name=TAG, commit=COMMIT, verification=None):
        verification = verification or {"verified": True, "reason": "valid"}
        answers = {
            f"git/ref/tags/{TAG}": {"ref": f"refs/tags/{TAG}", "object": {"type": kind, "sha": OBJECT}},
            f"git/tags/{OBJECT}": {"tag": name, "object": {"type": "commit", "sha": commit}, "verification": verification},
            f"compare/main...{commit}": {"status": status},
        }
        for path, answer in answers.items():
            (tmp_path / f"repos/shop/shop/{path}".replace("/", "_")).write_text(json.dumps(answer))
        env = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}", "ANSWERS": str(tmp_path), "GITHUB_REPOSITORY": "shop/shop",
            "GITHUB_REF_NAME": TAG, "GITHUB_SHA": COMMIT,
        }
        done = subprocess.run(["bash", "-e", "-c", step["run"]], env=env, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout

    return run


@pytest.mark.parametrize("status", ["identical", "behind"])
def test_a_signed_tag_of_a_commit_on_main_is_released(tag_check, status):
    assert tag_check(status=status) == (0, "")


@pytest.mark.parametrize("answers, message", [
    ({"kind": "commit"}, "v1.2.3 is not an annotated tag"),
    ({"verification": {"verified": False, "reason": "unsigned"}}, "the signature of v1.2.3 is not verified (unsigned)"),
    ({"verification": {"verified": False, "reason": "unknown_key"}}, "is not verified (unknown_key)"),
    ({"name": "v1.2.2"}, "the tag object names v1.2.2"),
    ({"commit": "d" * 40}, f"names v1.2.3 and {'d' * 40}, not v1.2.3 and {COMMIT}"),
    ({"status": "ahead"}, f"commit {COMMIT} is not on main"),
    ({"status": "diverged"}, "is not on main"),
])  # fmt: skip
def test_a_tag_that_is_not_signed_or_not_on_main_is_not_released(tag_check, answers, message):
    status, printed = tag_check(**answers)
    assert status == 1 and printed.startswith("::error::") and message in printed


def test_a_tag_that_github_does_not_answer_for_is_not_released(tag_check, tmp_path):
    (tmp_path / "gh").write_text("#!/bin/sh\necho 'gh: Not Found (HTTP 404)' >&2\nexit 1\n")
    assert tag_check()[0] == 1


@workflows
def test_a_workflow_that_a_tag_starts_verifies_the_tag_first(path):
    workflow = yaml.safe_load(path.read_text())
    # YAML 1.1 reads `on` as a boolean.
    if "tags" in ((workflow[True] or {}).get("push") or {}):
        jobs = workflow["jobs"]
        assert jobs["tag"]["uses"] == "./.github/workflows/tag.yml" and "needs" not in jobs["tag"]
        for name in jobs.keys() - {"tag"}:
            assert "tag" in needed(jobs, name), name


def needed(jobs, name):
    """Returns all jobs that end before this one starts."""
    direct = jobs[name].get("needs", [])
    direct = {direct} if isinstance(direct, str) else set(direct)
    return direct.union(*(needed(jobs, other) for other in direct))


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
    (image,) = re.findall(r"^FROM (\S+/rust:\S+) AS build$", (ROOT / "deploy" / "Dockerfile").read_text(), re.M)
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


def test_there_is_a_form_for_each_kind_of_issue_that_contributors_are_invited_to_open():
    assert re.search(r"^Bug reports, questions and changes are welcome", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    config = yaml.safe_load((FOLDER / "ISSUE_TEMPLATE" / "config.yml").read_text())
    forms = {path.stem for path in (FOLDER / "ISSUE_TEMPLATE").glob("*.yml")} - {"config"}
    assert config["blank_issues_enabled"] is False and forms == {"bug", "feature", "question"}


@pytest.fixture
def publish(tmp_path):
    """Runs the step of site.yml that publishes, with a repository on this machine, and returns its status and output."""
    (step,) = [s for s in yaml.safe_load((FOLDER / "workflows" / "site.yml").read_text())["jobs"]["site"]["steps"] if s.get("name") == "Publish"]
    remote = tmp_path / "shop" / "shop"
    subprocess.run(["git", "init", "--quiet", "--bare", remote], check=True)

    def run(version, text):
        work = tmp_path / "work"
        shutil.rmtree(work, ignore_errors=True)
        page = work / "target" / "site" / "book" / version / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text(text)
        (work / ".ci").mkdir()
        shutil.copy2(ROOT / ".ci" / "site-index", work / ".ci")
        env = {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "TOKEN": "t", "GITHUB_SERVER_URL": f"file://{tmp_path}",
            "GITHUB_REPOSITORY": "shop/shop", "GITHUB_REF_NAME": f"v{version}",
        }
        command = ["bash", "-e", "-o", "pipefail", "-c", step["run"]]
        done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        log = ["git", "-C", remote, "log", "--format=%s", "gh-pages"]
        return subprocess.run(log, capture_output=True, text=True, check=True).stdout.splitlines()

    return run


def test_a_site_that_is_published_again_is_one_commit_unless_it_changed(publish):
    assert publish("0.2.0", "first") == ["site: publish 0.2.0"]
    assert publish("0.2.0", "first") == ["site: publish 0.2.0"]
    assert publish("0.2.0", "second") == ["site: publish 0.2.0"] * 2
    assert publish("0.3.0", "first")[0] == "site: publish 0.3.0"


def owners():
    """Returns the pairs of pattern and owners in CODEOWNERS."""
    for line in (FOLDER / "CODEOWNERS").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern, *names = line.split()
            yield pattern, names


def test_paths_of_owners_and_updates_exist():
    for pattern, _ in owners():
        # GitHub compares a pattern with a leading slash from the root, and one with a slash at its end with directories only.
        path = ROOT / pattern.strip("/")
        assert pattern == "*" or pattern.startswith("/") and (path.is_dir() if pattern.endswith("/") else path.is_file()), pattern
    for ecosystem, folder in updated():
        assert (ROOT / folder.strip("/")).is_dir(), (ecosystem, folder)


def test_the_paths_where_a_token_could_leak_are_those_of_the_security_reviewers_alone():
    """GitHub asks for one owner of the last matching line. A second team there would make the first one optional."""
    listed = list(owners())
    assert listed[0] == ("*", ["@sidentity/maintainers"])
    assert all(names == ["@sidentity/security"] for _, names in listed[1:])
    paths = {pattern for pattern, _ in listed[1:]}
    sources = {f"/src/{name}/" for name in "credentials destination dns intercept policy proxy token upstream".split()}
    assert sources | {"/.github/", "/deploy/install", "/deploy/release/", "/deny.toml"} <= paths


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
