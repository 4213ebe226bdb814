use std::fs;

use super::*;

fn folder_with_file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    fs::write(&path, "{}").unwrap();
    (folder, path)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_variable_takes_precedence_over_a_metadata_server() {
    let (folder, _) = folder_with_file();
    let environment = Environment {
        variable: Some("/nonexistent/key.json"),
        gcloud_folder: Some(text(folder.path())),
        has_metadata_server: true,
        ..Environment::default()
    };
    let variable = Found::File("/nonexistent/key.json".into(), FoundBy::Variable);
    for mode in [Mode::Auto, Mode::Adc] {
        assert_eq!(search(&mode, &environment), variable);
    }
    let metadata = Found::Metadata {
        searched: None,
        looked_at: None,
    };
    assert_eq!(search(&Mode::Metadata, &environment), metadata);
}

#[test]
fn gclouds_file_is_found_by_its_variable_or_in_home() {
    let (folder, path) = folder_with_file();
    let home = tempfile::tempdir().unwrap();
    let in_home = home.path().join(".config/gcloud");
    fs::create_dir_all(&in_home).unwrap();
    fs::write(in_home.join(FILE), "{}").unwrap();
    let by_home = Environment {
        home: Some(text(home.path())),
        ..Environment::default()
    };
    let by_variable = Environment {
        gcloud_folder: Some(text(folder.path())),
        ..by_home
    };
    for mode in [Mode::Auto, Mode::Adc] {
        let found = search(&mode, &by_variable);
        assert_eq!(found, Found::File(path.clone(), FoundBy::Gcloud));
        let found = search(&mode, &by_home);
        assert_eq!(found, Found::File(in_home.join(FILE), FoundBy::Gcloud));
    }
}

#[test]
fn gclouds_file_is_ignored_if_there_is_a_metadata_server() {
    let (folder, path) = folder_with_file();
    let environment = Environment {
        gcloud_folder: Some(text(folder.path())),
        has_metadata_server: true,
        ..Environment::default()
    };
    let metadata = Found::Metadata {
        searched: None,
        looked_at: None,
    };
    assert_eq!(search(&Mode::Auto, &environment), metadata);
    // `adc` never means the metadata server.
    let file = Found::File(path, FoundBy::Gcloud);
    assert_eq!(search(&Mode::Adc, &environment), file);
}

#[test]
fn every_searched_place_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let environment = Environment {
        gcloud_folder: Some(text(folder.path())),
        home: Some("/root"),
        ..Environment::default()
    };
    let list = format!("GOOGLE_APPLICATION_CREDENTIALS is not set; {path:?} does not exist");
    assert_eq!(
        search(&Mode::Adc, &environment),
        Found::Nothing {
            searched: list.clone()
        }
    );
    assert_eq!(
        search(&Mode::Auto, &environment),
        Found::Metadata {
            searched: Some(list),
            looked_at: Some(path)
        }
    );
    let Found::Nothing { searched } = search(&Mode::Adc, &Environment::default()) else {
        panic!("something was found");
    };
    assert!(searched.contains("HOME"), "{searched}");
}
