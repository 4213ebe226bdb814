//! The CA and its leaf certificates.

use super::*;

#[tokio::test]
async fn five_hundred_first_connections_share_one_leaf() {
    let setup = Setup::new(&[]).await;
    let (proxy, roots) = (setup.sidecar.proxy(), setup.ca());
    let connections: Vec<_> = (0..500)
        .map(|_| {
            let roots = roots.clone();
            tokio::spawn(async move {
                tls(proxy, "storage.googleapis.com:443", &roots, &[H2])
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut leaves = HashSet::new();
    for connection in connections {
        leaves.insert(leaf(&connection.await.unwrap()));
    }
    assert_eq!(leaves.len(), 1);
    let other = setup.tls("svc.a.run.app", &[H2]).await;
    assert!(!leaves.contains(&leaf(&other)));
}

#[tokio::test]
async fn no_private_key_is_written_and_each_start_has_its_own_ca() {
    let setup = Setup::new(&[]).await;
    setup.tls("svc.a.run.app", &[H2]).await;
    let mut names: Vec<String> = Vec::new();
    for file in std::fs::read_dir(setup.ca_dir.path()).unwrap() {
        let file = file.unwrap();
        names.push(file.file_name().into_string().unwrap());
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o644);
        let bytes = std::fs::read(file.path()).unwrap();
        let holds = |wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
        assert!(!holds(b"PRIVATE"), "{names:?}");
        // These are the first bytes of PKCS #8 and SEC 1 keys of P-256, and the PKCS #12 bags for keys.
        assert!(!holds(b"\x02\x01\x01\x04\x20"), "{names:?}");
        assert!(
            !holds(b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x01"),
            "{names:?}"
        );
        assert!(
            !holds(b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x02"),
            "{names:?}"
        );
    }
    names.sort();
    assert_eq!(names, ["bundle.pem", "ca.pem", "truststore.p12"]);
    let first = std::fs::read(setup.ca()).unwrap();
    let bundle = std::fs::read(setup.ca_dir.path().join("bundle.pem")).unwrap();
    assert!(bundle.ends_with(&first) && bundle.len() > 50 * first.len());

    let folder = setup.ca_dir.path().to_str().unwrap();
    let _again = beside(
        &setup.metadata,
        &setup.service,
        &["--intercept", "--ca-dir", folder],
    )
    .await;
    assert_ne!(std::fs::read(setup.ca()).unwrap(), first);
    // The CA of the first start is no longer trusted.
    let refused = tls(
        setup.sidecar.proxy(),
        "svc.a.run.app:443",
        &setup.ca(),
        &[H2],
    )
    .await;
    assert!(refused.is_err());
}
