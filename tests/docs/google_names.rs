//! Every name of a Google Cloud resource in the documents and in deploy/ is valid.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::path;

/// The kind of resource that a name belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// <https://cloud.google.com/iam/docs/service-accounts-create>: 6 to 30 lower-case letters, digits and hyphens.
    Account,
    /// <https://cloud.google.com/storage/docs/buckets#naming>: 3 to 63 lower-case letters, digits, `-`, `_` and `.`.
    Bucket,
    /// <https://cloud.google.com/resource-manager/docs/creating-managing-projects>: the same rule as for accounts.
    Project,
    /// A region of Google Cloud.
    Region,
    /// <https://cloud.google.com/artifact-registry/docs/repositories>: at most 63 lower-case letters, digits and
    /// hyphens.
    Repository,
    /// A role that exists.
    Role,
    /// <https://cloud.google.com/secret-manager/docs/creating-and-accessing-secrets>: at most 255 letters, digits, `-`
    /// and `_`.
    Secret,
    /// A Cloud Run service or job, at most 49 lower-case letters, digits and hyphens.
    Service,
}

const REGIONS: [&str; 43] = [
    "africa-south1",
    "asia-east1",
    "asia-east2",
    "asia-northeast1",
    "asia-northeast2",
    "asia-northeast3",
    "asia-south1",
    "asia-south2",
    "asia-southeast1",
    "asia-southeast2",
    "asia-southeast3",
    "australia-southeast1",
    "australia-southeast2",
    "europe-central2",
    "europe-north1",
    "europe-north2",
    "europe-southwest1",
    "europe-west1",
    "europe-west10",
    "europe-west12",
    "europe-west2",
    "europe-west3",
    "europe-west4",
    "europe-west6",
    "europe-west8",
    "europe-west9",
    "me-central1",
    "me-central2",
    "me-west1",
    "northamerica-northeast1",
    "northamerica-northeast2",
    "northamerica-south1",
    "southamerica-east1",
    "southamerica-west1",
    "us-central1",
    "us-east1",
    "us-east4",
    "us-east5",
    "us-south1",
    "us-west1",
    "us-west2",
    "us-west3",
    "us-west4",
];

/// The roles in the documents. Before a role is added here, it must be looked up in
/// <https://cloud.google.com/iam/docs/roles-permissions>.
const ROLES: [&str; 18] = [
    "roles/aiplatform.user",
    "roles/artifactregistry.reader",
    "roles/artifactregistry.writer",
    "roles/cloudfunctions.invoker",
    "roles/editor",
    "roles/iam.serviceAccountTokenCreator",
    "roles/iam.workloadIdentityUser",
    "roles/iap.httpsResourceAccessor",
    "roles/logging.logWriter",
    "roles/monitoring.metricWriter",
    "roles/monitoring.viewer",
    "roles/owner",
    "roles/run.admin",
    "roles/run.invoker",
    "roles/secretmanager.secretAccessor",
    "roles/serviceusage.serviceUsageConsumer",
    "roles/storage.objectViewer",
    "roles/viewer",
];

// === impl Kind ===

impl Kind {
    fn takes(self, name: &str) -> bool {
        let label = |least: usize, most: usize| {
            (least..=most).contains(&name.len())
                && name.starts_with(|c: char| c.is_ascii_lowercase())
                && !name.ends_with('-')
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        match self {
            Self::Account | Self::Project => label(6, 30),
            Self::Bucket => {
                (3..=63).contains(&name.len())
                    && name.bytes().all(|b| {
                        b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)
                    })
                    && name.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && name.ends_with(|c: char| c.is_ascii_alphanumeric())
                    && !name.starts_with("goog")
            }
            // Identity pools have the region `global`.
            Self::Region => name == "global" || REGIONS.contains(&name),
            Self::Repository => label(1, 63),
            Self::Role => ROLES.contains(&name),
            Self::Secret => {
                (1..=255).contains(&name.len())
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            }
            Self::Service => label(1, 49),
        }
    }
}

type Names = BTreeSet<(Kind, String)>;

/// Returns whether the reader must replace the name: `PROJECT`, `$PROJECT`, `${var.name}`, `SERVICE-NUMBER`.
fn is_placeholder(name: &str) -> bool {
    name.is_empty()
        || name.contains(['$', '{', '}', '…', '<', '*'])
        || !name.contains(|c: char| c.is_ascii_lowercase())
}

fn add(names: &mut Names, kind: Kind, name: &str) {
    if !is_placeholder(name) {
        names.insert((kind, name.to_owned()));
    }
}

/// Splits a text into words: at white space, and where Markdown, YAML, HCL and shells end a value.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || "\"'`()[],;|<>".contains(c))
        .map(|word| word.trim_end_matches(['.', ':']))
        .filter(|word| !word.is_empty())
}

/// Returns all names in a text.
fn names_in(text: &str) -> Names {
    let mut names = Names::new();
    for word in words(text) {
        // NAME@PROJECT.iam.gserviceaccount.com
        for (at, _) in word.match_indices(".iam.gserviceaccount.com") {
            if let Some((before, project)) = word[..at].rsplit_once('@') {
                let account = before.rsplit([':', '=', '/']).next().unwrap();
                add(&mut names, Kind::Account, account);
                add(&mut names, Kind::Project, project);
            }
        }
        // REGION-docker.pkg.dev/PROJECT/REPOSITORY/IMAGE
        if let Some((host, rest)) = word.split_once("-docker.pkg.dev") {
            let region = host.rsplit(['=', '/']).next().unwrap();
            if !["us", "europe", "asia"].contains(&region) {
                add(&mut names, Kind::Region, region);
            }
            let mut parts = rest.split('/').skip(1);
            add(&mut names, Kind::Project, parts.next().unwrap_or(""));
            add(&mut names, Kind::Repository, parts.next().unwrap_or(""));
        }
        // SERVICE-NUMBER.REGION.run.app
        for (at, _) in word.match_indices(".run.app") {
            let host = word[..at].rsplit(['/', '=', '@']).next().unwrap();
            if let Some((service, region)) =
                host.split_once('.').filter(|(_, region)| *region != "a")
            {
                let service = service.rsplit("---").next().unwrap();
                add(
                    &mut names,
                    Kind::Service,
                    service.rsplit_once('-').map_or(service, |(name, _)| name),
                );
                add(&mut names, Kind::Region, region);
            }
        }
        if let Some(at) = word
            .find("roles/")
            .filter(|at| !word[..*at].ends_with(|c: char| c.is_alphanumeric()))
        {
            let role = word[at..].trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            if role.len() > "roles/".len() {
                add(&mut names, Kind::Role, role);
            }
        }
        for (marker, kind) in [
            ("gs://", Kind::Bucket),
            ("projects/", Kind::Project),
            ("secrets/", Kind::Secret),
            ("locations/", Kind::Region),
            ("repositories/", Kind::Repository),
            ("services/", Kind::Service),
        ] {
            if let Some((before, rest)) = word.split_once(marker)
                && (before.is_empty() || before.ends_with(['/', ':', '=']))
                && !before.contains("github.com")
            {
                add(&mut names, kind, rest.split('/').next().unwrap());
            }
        }
        if is_like_a_region(word) {
            add(&mut names, Kind::Region, word);
        }
    }
    commands(text, &mut names);
    values(text, &mut names);
    names
}

/// Returns whether the word has the form of `us-central1`. The region need not exist.
fn is_like_a_region(word: &str) -> bool {
    let Some((area, rest)) = word.split_once('-') else {
        return false;
    };
    let direction = rest.trim_end_matches(|c: char| c.is_ascii_digit());
    let is_direction = ["central", "east", "west", "north", "south"]
        .iter()
        .any(|known| direction.starts_with(known));
    !area.is_empty()
        && area.bytes().all(|b| b.is_ascii_lowercase())
        && direction.len() < rest.len()
        && is_direction
        && direction.bytes().all(|b| b.is_ascii_lowercase())
}

/// Collects the resources that `gcloud` commands name, also in comments and over several lines.
fn commands(text: &str, names: &mut Names) {
    let joined = text.replace("\\\n#", " ").replace("\\\n", " ");
    for line in joined.lines() {
        for command in line.split("gcloud ").skip(1) {
            let command = command.split([')', '|', '`']).next().unwrap();
            let all: Vec<&str> = command
                .split_whitespace()
                .map(|word| word.trim_matches(['"', '\'']))
                .collect();
            for (flag, kind) in [
                ("--region", Kind::Region),
                ("--location", Kind::Region),
                ("--project", Kind::Project),
                ("--repository", Kind::Repository),
            ] {
                for (index, word) in all.iter().enumerate() {
                    let value = match word.strip_prefix(flag) {
                        Some("") => all.get(index + 1).copied().unwrap_or(""),
                        Some(rest) => rest.strip_prefix('=').unwrap_or(""),
                        None => "",
                    };
                    add(names, kind, value.trim_matches(['"', '\'']));
                }
            }
            let plain: Vec<&str> = all
                .iter()
                .copied()
                .take_while(|word| !word.starts_with('-'))
                .collect();
            let kind = match &plain[..] {
                ["iam", "service-accounts", _, ..] => Kind::Account,
                ["artifacts", "repositories", _, ..] => Kind::Repository,
                ["secrets", ..] => Kind::Secret,
                ["run", "deploy", ..] | ["run", "services" | "jobs" | "worker-pools", ..] => {
                    Kind::Service
                }
                ["storage", "buckets", ..] => Kind::Bucket,
                ["projects", ..] => Kind::Project,
                _ => continue,
            };
            let name = plain.last().unwrap();
            // `replace` takes a file, and some commands take an account by its address.
            let is_other = name.ends_with(".yaml") || name.contains('@');
            let is_verb = plain.len() < 3 && plain[0] != "secrets" && plain[1] != "deploy";
            if !is_other && !is_verb {
                add(names, kind, name);
            }
        }
    }
}

/// Collects the values of keys in YAML, HCL and shells that name a resource.
fn values(text: &str, names: &mut Names) {
    let mut knative = false;
    let mut in_metadata = false;
    for line in text.lines() {
        let bare = line
            .trim()
            .trim_start_matches("- ")
            .trim_start_matches("export ");
        if bare.starts_with("apiVersion:") {
            knative = bare.contains("serving.knative.dev") || bare.contains("run.googleapis.com");
        }
        if !line.starts_with(' ') {
            in_metadata = line.starts_with("metadata:");
        }
        let Some((key, value)) = bare.split_once(['=', ':']) else {
            continue;
        };
        let value = value.trim().trim_matches(['"', '\'']);
        let kind = match key.trim() {
            "project" | "PROJECT" | "project_id" | "project-id" => Kind::Project,
            "region" | "REGION" | "location" => Kind::Region,
            "account_id" => Kind::Account,
            "secretName" => Kind::Secret,
            "name" if knative && in_metadata && line.starts_with("  name:") => Kind::Service,
            _ => continue,
        };
        // Expressions of Terraform and prose are not names.
        let is_name = value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if is_name && !value.is_empty() && !["string", "optional"].contains(&value) {
            add(names, kind, value);
        }
    }
}

pub(super) fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if let Ok(text) = fs::read_to_string(&path) {
            found.push(format!("{}\n{text}", path.display()));
        }
    }
}

#[test]
fn every_google_name_in_the_documents_is_valid() {
    let mut texts = Vec::new();
    files(&path("docs"), &mut texts);
    files(&path("deploy"), &mut texts);
    files(&path(".github"), &mut texts);
    for page in [
        "README.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "UPGRADING.md",
    ] {
        texts.push(format!(
            "{page}\n{}",
            fs::read_to_string(path(page)).unwrap()
        ));
    }
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for text in &texts {
        let (file, text) = text.split_once('\n').unwrap();
        for (kind, name) in names_in(text) {
            if !kind.takes(&name) {
                wrong.push(format!("{file}: {kind:?} {name:?}"));
            }
            seen.insert((kind, name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The search must find known names.
    for (kind, name) in [
        (Kind::Account, "shop-runner"),
        (Kind::Project, "example-project"),
        (Kind::Region, "europe-west1"),
        (Kind::Repository, "shop"),
        (Kind::Role, "roles/run.invoker"),
        (Kind::Secret, "sidentity-monitoring"),
        (Kind::Service, "shop"),
        (Kind::Service, "shop-nightly"),
        (Kind::Service, "shop-worker"),
        (Kind::Service, "billing"),
    ] {
        assert!(
            seen.contains(&(kind, name.to_owned())),
            "{kind:?} {name} in {seen:#?}"
        );
    }
}

#[test]
fn an_invalid_google_name_is_found_anywhere() {
    for (text, kind, name) in [
        (
            "gcloud iam service-accounts create shop",
            Kind::Account,
            "shop",
        ),
        (
            "export ACCOUNT=\"shop@$PROJECT.iam.gserviceaccount.com\"",
            Kind::Account,
            "shop",
        ),
        (
            "x: serviceAccount:web@my-project.iam.gserviceaccount.com",
            Kind::Account,
            "web",
        ),
        ("a@prj.iam.gserviceaccount.com", Kind::Project, "prj"),
        (
            "gcloud run deploy Billing --image x",
            Kind::Service,
            "Billing",
        ),
        (
            "gcloud run services describe billing_x --format=y",
            Kind::Service,
            "billing_x",
        ),
        (
            "gcloud artifacts repositories create Shop --location=x",
            Kind::Repository,
            "Shop",
        ),
        (
            "gcloud secrets create my.secret --data-file=x",
            Kind::Secret,
            "my.secret",
        ),
        (
            "#  gcloud run deploy a \\\n#    --region europe-west7",
            Kind::Region,
            "europe-west7",
        ),
        ("in `us-central2`.", Kind::Region, "us-central2"),
        (
            "europe-west7-docker.pkg.dev/my-project/shop/app:1",
            Kind::Region,
            "europe-west7",
        ),
        ("us-docker.pkg.dev/prj/Shop/app:1", Kind::Repository, "Shop"),
        (
            "https://billing-1.mars-east1.run.app/",
            Kind::Region,
            "mars-east1",
        ),
        (
            "--role=roles/run.invoke --x",
            Kind::Role,
            "roles/run.invoke",
        ),
        (
            "role = \"roles/storage.reader\"",
            Kind::Role,
            "roles/storage.reader",
        ),
        ("gs://My_Bucket/x", Kind::Bucket, "My_Bucket"),
        ("projects/prj/secrets/a.b", Kind::Project, "prj"),
        (
            "apiVersion: serving.knative.dev/v1\nmetadata:\n  name: Shop\n",
            Kind::Service,
            "Shop",
        ),
        ("export PROJECT=prj", Kind::Project, "prj"),
        ("  project = \"prj\"", Kind::Project, "prj"),
        ("  region          = \"mars-1\"", Kind::Region, "mars-1"),
    ] {
        let found = names_in(text);
        assert!(
            found.contains(&(kind, name.to_owned())),
            "{text}: {found:?}"
        );
        assert!(!kind.takes(name), "{name}");
    }
    for (kind, name) in [
        (Kind::Account, "shop-runner"),
        (Kind::Account, "a23456"),
        (Kind::Project, "my-project-123"),
        (Kind::Service, "a"),
        (Kind::Bucket, "my.bucket_1"),
    ] {
        assert!(kind.takes(name), "{name}");
    }
    for name in [
        "a2345",
        "6abcde",
        "abcdef-",
        "Abcdef",
        "abc_def",
        &"a".repeat(31),
    ] {
        assert!(!Kind::Account.takes(name), "{name}");
    }
    assert!(!Kind::Service.takes(&"a".repeat(50)));
}
