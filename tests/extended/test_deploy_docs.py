"""The commands of README.md, docs/cloud-run.md, docs/migrating.md and deploy/README.md."""

import os
import re
import shlex
import socket
import subprocess

import hcl2
import pytest
import yaml

from manifests import DEPLOY, VALUES, check, documents, google_schemas, pod_spec, sidecars, start_order, substituted, violations
from stage import BINARY, TIMEOUT, ROOT
from test_deploy_terraform import VARIABLES, plain


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.S | re.M)


def test_the_table_of_deploy_lists_every_file():
    named = {(DEPLOY / target).resolve() for target in re.findall(r"\]\(([^)\s]+)\)", (DEPLOY / "README.md").read_text())}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", DEPLOY], cwd=ROOT, capture_output=True, text=True,
        check=True,
    )
    files = {(ROOT / line).resolve() for line in listed.stdout.splitlines()} - {(DEPLOY / "README.md").resolve()}
    assert files and files <= named


# Each replaces a program that uses the network: it records its call, and prints a canned answer.
RECORDER = """#!/bin/sh
printf '%s\\n' "${0##*/} $(printf '%s\\037' "$@")" >> "$RECORD"
case "$*" in
    "config get-value project") echo example-project ;;
    "run services describe billing"*) echo "$FAKE_BILLING_URL" ;;
    "run services describe shop"*) echo https://shop-k5x2qeq7la-ew.a.run.app ;;
    "auth print-identity-token") echo not-a-token ;;
    "run services replace "*|"run jobs replace "*|"run worker-pools replace "*) cp "$4" "$RECORD.$(wc -l < "$RECORD" | tr -d ' ').yaml" ;;
esac
"""

# gcloud's reference for the page's commands: the number of words (None: any number), and the flags.
IAM = {"--member", "--role"}
GCLOUD = {
    "artifacts repositories create": (1, {"--repository-format", "--location"}),
    "artifacts repositories delete": (1, {"--location", "--quiet"}),
    "auth configure-docker": (1, {"--quiet"}),
    "auth print-identity-token": (0, set()),
    "builds submit": (None, {"--config", "--substitutions", "--tag"}),
    "config get-value": (1, set()),
    "iam service-accounts create": (1, set()),
    "iam service-accounts delete": (1, {"--quiet"}),
    "projects add-iam-policy-binding": (1, IAM | {"--condition"}),
    "projects remove-iam-policy-binding": (1, IAM | {"--condition"}),
    "run deploy": (1, {"--image", "--no-allow-unauthenticated"}),
    "run jobs delete": (1, {"--quiet"}),
    "run jobs execute": (1, {"--wait"}),
    "run jobs replace": (1, set()),
    "run services add-iam-policy-binding": (1, IAM),
    "run services delete": (1, {"--quiet"}),
    "run services describe": (1, {"--format"}),
    "run services logs read": (1, {"--limit"}),
    "run services remove-iam-policy-binding": (1, IAM),
    "run services replace": (1, set()),
    "run worker-pools delete": (1, {"--quiet"}),
    "run worker-pools replace": (1, set()),
    "secrets add-iam-policy-binding": (1, IAM),
    "secrets create": (1, {"--data-file"}),
    "secrets delete": (1, {"--quiet"}),
    "services enable": (None, set()),
}


def paste(folder, script):
    """Runs a script in a copy of the files that it reads. Returns its exports, and its calls of network programs."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("gcloud", "docker", "curl"):
        (programs / name).write_text(RECORDER)
        (programs / name).chmod(0o755)
    here = folder / "repository"
    here.mkdir()
    (here / "deploy").symlink_to(DEPLOY)
    record = folder / "record"
    env = {
        "PATH": f"{programs}:/usr/bin:/bin", "HOME": str(folder), "RECORD": str(record), "FAKE_BILLING_URL": VALUES["BILLING_URL"]
    }
    script += "\nenv -0 > exported\n"
    done = subprocess.run(["bash", "-eu", "-c", script], cwd=here, env=env, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stdout + done.stderr
    exported = dict(entry.split("=", 1) for entry in (here / "exported").read_text().split("\0") if entry)
    calls = []
    for number, line in enumerate(record.read_text().splitlines(), 1):
        program, _, words = line.partition(" ")
        calls.append((program, words.split("\037")[:-1], folder / f"record.{number}.yaml"))
    return exported, calls


@pytest.fixture(scope="module")
def pasted(tmp_path_factory):
    """Runs all of docs/cloud-run.md, block by block in one shell."""
    script = "".join(blocks(ROOT / "docs" / "cloud-run.md", "sh"))
    return paste(tmp_path_factory.mktemp("pasted"), script)


def check_call(words):
    """Checks a call of gcloud against its reference, and returns the command."""
    flags = {word.split("=")[0] for word in words if word.startswith("--")}
    plain_words = [word for word in words if not word.startswith("--")]
    (command,) = [c for c in GCLOUD if plain_words[: len(c.split())] == c.split()]
    count, known = GCLOUD[command]
    assert count in (None, len(plain_words) - len(command.split())) and flags <= known, words
    return command


def test_pasting_the_quick_start_sets_what_the_files_need(pasted):
    exported, _ = pasted
    assert {name: exported.get(name) for name in VALUES} == VALUES


def test_pasting_the_quick_start_calls_gcloud_with_valid_arguments(pasted):
    _, calls = pasted
    seen = set()
    for program, words, _ in calls:
        if program != "gcloud":
            continue
        seen.add(check_call(words))
        for word in words:
            if word.startswith("--member="):
                assert word == f"--member=serviceAccount:{VALUES['ACCOUNT']}"
            if word.startswith("--data-file="):
                assert (ROOT / word.partition("=")[2]).is_file()
    assert seen == set(GCLOUD)


def test_pasting_the_quick_start_builds_what_it_pushes_and_deploys(pasted):
    _, calls = pasted
    docker = [words for program, words, _ in calls if program == "docker"]
    built = [words[words.index("-t") + 1] for words in docker if words[0] == "build"]
    pushed = [words[1] for words in docker if words[0] == "push"]
    assert built == pushed == [VALUES["SIDENTITY_IMAGE"], VALUES["APP_IMAGE"]]
    for words in docker:
        if words[0] == "build":
            file = ROOT / words[words.index("-f") + 1] if "-f" in words else ROOT / words[-1] / "Dockerfile"
            assert file.is_file()


def test_pasting_the_quick_start_builds_the_same_on_cloud_build(pasted):
    _, calls = pasted
    (sidecar, app) = [words[2:] for program, words, _ in calls if program == "gcloud" and words[:2] == ["builds", "submit"]]
    assert sidecar == ["--config=deploy/cloudbuild.yaml", f"--substitutions=_IMAGE={VALUES['SIDENTITY_IMAGE']}"]
    assert app == ["deploy/example", f"--tag={VALUES['APP_IMAGE']}"]
    build = yaml.safe_load((DEPLOY / "cloudbuild.yaml").read_text())
    schemas = google_schemas("cloudbuild", "v1")
    assert not list(violations(build, schemas["Build"], schemas))
    (step,) = build["steps"]
    assert "--file=deploy/Dockerfile" in step["args"] and (DEPLOY / "Dockerfile").is_file()
    assert build["images"] == ["${_IMAGE}"] and "--tag=${_IMAGE}" in step["args"]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_pasting_the_readmes_development_block_works():
    (block,) = [block for block in blocks(ROOT / "README.md", "sh") if "billing.py" in block]
    admin = free_port()
    for port in ("8980", "8081", "8090"):
        block = re.sub(rf"\b{port}\b", str(free_port()), block)
    block = block.replace("metadata-server &", f"metadata-server --listen=$GCE_METADATA_HOST &")
    block = "\n".join(sorted(block.splitlines(), key=lambda line: not line.startswith("export")))
    env = {
        "PATH": f"{os.path.dirname(BINARY)}:{os.environ['PATH']}", "SIDENTITY_ADMIN": f"127.0.0.1:{admin}",
        "SIDENTITY_PROXY": f"127.0.0.1:{free_port()}",
    }
    script = f"trap 'kill $(jobs -p)' EXIT\n{block}"
    done = subprocess.run(
        ["bash", "-eu", "-c", script], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stdout
    answer = yaml.safe_load(done.stdout.splitlines()[-1])
    assert answer["caller"].endswith(".iam.gserviceaccount.com"), done.stdout


def test_pasting_the_quick_start_deploys_the_tested_files(pasted):
    _, calls = pasted
    deployed = [file.read_text() for _, _, file in calls if file.exists()]
    tested = [substituted(path.read_text()) for path in DEPLOY.glob("cloudrun/**/*.yaml") if path.name != "run-monitoring.yaml"]
    assert sorted(deployed) == sorted(tested)


def test_pasting_the_readmes_cloud_run_block_deploys_an_authorised_app(tmp_path):
    (block,) = [block for block in blocks(ROOT / "README.md", "sh") if "services replace" in block]
    exported, calls = paste(tmp_path, block)
    assert {name: exported.get(name, VALUES[name]) for name in VALUES} == VALUES
    commands = [check_call(words) for program, words, _ in calls if program == "gcloud"]
    order = ["services enable", "artifacts repositories create", "builds submit", "run deploy", "iam service-accounts create"]
    places = [commands.index(command) for command in [*order, "run services add-iam-policy-binding", "run services replace"]]
    assert places == sorted(places)
    (deployed,) = [file.read_text() for _, _, file in calls if file.exists()]
    assert deployed == substituted((DEPLOY / "cloudrun" / "service-routes.yaml").read_text())


def test_cloud_run_accepts_the_readmes_service():
    (text,) = blocks(ROOT / "README.md", "yaml")
    document = yaml.safe_load(text)
    schemas = google_schemas("run", "v1")
    assert not list(violations(document, schemas["Service"], schemas))
    (sidecar,) = sidecars(pod_spec(document))
    assert start_order(document)[0] == sidecar["name"]
    args = [arg.replace("NUMBER.REGION", "424242.us-central1") for arg in sidecar["args"]]
    done = check(args, {"K_SERVICE": "shop"})
    assert done.returncode == 0, done.stderr
    # The file that it abbreviates uses the same probe.
    (full,) = [yaml.safe_load((DEPLOY / "cloudrun" / "service-routes.yaml").read_text())]
    (other,) = sidecars(pod_spec(full) | {"containers": [c | {"image": c["name"]} for c in pod_spec(full)["containers"]]})
    for key in ("startupProbe", "livenessProbe", "resources"):
        assert sidecar[key] == other[key]


def commands(page):
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            if line.startswith("sidentity "):
                yield shlex.split(line, comments=True)[1:]


MIGRATING = ROOT / "docs" / "migrating.md"


@pytest.mark.parametrize("args", list(commands(MIGRATING)), ids=" ".join)
def test_the_sidecar_accepts_the_commands_of_the_migration_note(args):
    done = check(args, {})
    assert done.returncode == 0, done.stderr


def test_the_sidecar_accepts_the_file_of_the_migration_note(tmp_path):
    (text,) = blocks(MIGRATING, "yaml")
    file = tmp_path / "sidentity.yaml"
    file.write_text(text)
    done = check(["--config", file], {})
    assert done.returncode == 0, done.stderr


def test_every_option_that_the_migration_note_names_exists():
    help_text = (ROOT / "docs" / "configuration.md").read_text()
    # Flags with one hyphen belong to other programs. `exec` and `metadata-server` are commands.
    for span in re.findall(r"`([^`\n]+)`", MIGRATING.read_text()):
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", span):
            assert option in help_text, option
        for option in re.findall(r"^([a-z]+)=", span):
            assert f"{option}=" in help_text, option
    discovered = check(["--route", "8081=run://billing", "--discover", "on"], {})
    assert discovered.returncode == 0, discovered.stderr


def test_the_module_accepts_the_variables_of_the_example():
    (text,) = blocks(DEPLOY / "README.md", "hcl")
    (module,) = [body for block in plain(hcl2.loads(text))["module"] for body in block.values()]
    assert module.pop("source").endswith("//deploy/terraform") and (DEPLOY / "terraform").is_dir()
    required = {name for name, body in VARIABLES.items() if "default" not in body}
    assert required <= set(module) <= set(VARIABLES)
    pattern = re.search(r'regex\("(.+?)", var\.name\)', (DEPLOY / "terraform" / "variables.tf").read_text())[1]
    assert re.search(pattern, module["name"])


def test_the_values_of_deploy_are_those_that_the_files_need(tmp_path):
    (block,) = [block for block in blocks(DEPLOY / "README.md", "sh") if "envsubst < deploy/gke" in block]
    (tmp_path / "deploy").symlink_to(DEPLOY)
    done = subprocess.run(["bash", "-eu", "-c", block], cwd=tmp_path, env={"PATH": os.environ["PATH"]}, timeout=TIMEOUT)
    assert done.returncode == 0
    made = list(yaml.safe_load_all((tmp_path / "deployment.yaml").read_text()))
    assert made == documents(DEPLOY / "gke" / "deployment.yaml")
