use rustls::pki_types::pem::PemObject;

use super::*;

fn certificates(count: usize) -> Vec<CertificateDer<'static>> {
    (0..count)
        .map(|_| {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            params.self_signed(&key).unwrap().der().clone()
        })
        .collect()
}

fn read(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

#[test]
fn the_ca_is_alone_in_one_file_and_last_in_the_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let all = certificates(3);
    write(folder.path(), &all[2], &all[..2]).unwrap();
    assert_eq!(read(&folder.path().join("ca.pem")), &all[2..]);
    assert_eq!(read(&folder.path().join("bundle.pem")), all);
    for name in ["ca.pem", "bundle.pem", "truststore.p12"] {
        let mode = fs::metadata(folder.path().join(name))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o7777, MODE, "{name}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn existing_files_are_replaced_atomically() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    fs::write(&path, "old").unwrap();
    let mut old = fs::File::open(&path).unwrap();
    // A file that a crash left behind, and a symbolic link. The writer must follow neither.
    let elsewhere = folder.path().join("elsewhere");
    fs::write(&elsewhere, "untouched").unwrap();
    std::os::unix::fs::symlink(&elsewhere, folder.path().join(".ca.pem.new")).unwrap();
    let all = certificates(1);
    write(folder.path(), &all[0], &[]).unwrap();
    assert_eq!(read(&path), all);
    let mut seen = String::new();
    io::Read::read_to_string(&mut old, &mut seen).unwrap();
    assert_eq!(seen, "old", "an open reader keeps the old file");
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "untouched");
}

#[test]
fn a_missing_directory_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("not/there");
    write(&path, &certificates(1)[0], &[]).unwrap();
    assert!(path.join("ca.pem").is_file());
}

#[test]
fn a_directory_that_cannot_be_created_is_reported_with_its_flag() {
    let error = write(Path::new("/dev/null/ca"), &certificates(1)[0], &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "flag --ca-dir: cannot write /dev/null/ca: Not a directory (os error 20)"
    );
}

#[test]
fn lines_of_pem_are_64_characters_long() {
    for length in [47, 48, 49, 96] {
        let der = CertificateDer::from(vec![7; length]);
        let pem = pem(&der);
        assert!(pem.lines().all(|line| line.len() <= 64 && !line.is_empty()));
        assert_eq!(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap(), der);
    }
}
