use proptest::prelude::*;

use super::{email, project_id, project_number, region, universe};

#[test]
fn a_universe_is_a_host_name_of_at_least_two_labels() {
    assert_eq!(
        universe("googleapis.com").as_deref(),
        Some("googleapis.com")
    );
    assert_eq!(universe("S3NSapis.fr.").as_deref(), Some("s3nsapis.fr"));
    for text in [
        "", "com", "1.2.3.4", "[::1]", "*.com", "a b.com", "a/b.com", "<html>",
    ] {
        assert_eq!(universe(text), None, "{text:?}");
    }
}

#[test]
fn a_project_id_may_have_a_domain_prefix() {
    for text in ["p-1", "example.com:p-1", "s3ns:p-1"] {
        assert_eq!(project_id(text).as_deref(), Some(text));
    }
    for text in ["", "P", "a b", "a/b", "a\"b", &"a".repeat(129)] {
        assert_eq!(project_id(text), None, "{text:?}");
    }
}

#[test]
fn an_email_may_be_a_workload_identity_pool() {
    for text in ["a@p.iam.gserviceaccount.com", "p.svc.id.goog"] {
        assert_eq!(email(text).as_deref(), Some(text));
    }
    for text in ["", "a b", "a\nb", "é@x", &"a".repeat(321)] {
        assert_eq!(email(text), None, "{text:?}");
    }
}

#[test]
fn a_region_is_the_last_part_of_a_path_or_most_of_a_zone() {
    for (text, expected) in [
        ("projects/42/regions/europe-west1", Some("europe-west1")),
        ("projects/42/zones/europe-west1-b", Some("europe-west1")),
        // Cloud Run's zones have no letter.
        ("projects/42/zones/us-central1-1", Some("us-central1")),
        ("us-central1", Some("us-central1")),
        ("", None),
        ("projects/42/regions/", None),
        ("projects/42/regions/evil.example", None),
        ("projects/42/regions/us-central1.evil", None),
        ("<html>", None),
    ] {
        assert_eq!(region(text).as_deref(), expected, "{text:?}");
    }
}

#[test]
fn a_project_number_is_digits() {
    assert_eq!(project_number("424242").as_deref(), Some("424242"));
    for text in ["", "4 2", "a", "42.evil", &"4".repeat(21)] {
        assert_eq!(project_number(text), None, "{text:?}");
    }
}

proptest! {
    #[test]
    fn accepted_facts_are_safe_to_log(text in "\\PC{0,40}") {
        let facts = [
            universe(&text),
            project_id(&text),
            project_number(&text),
            region(&text),
            email(&text),
        ];
        for fact in facts.into_iter().flatten() {
            prop_assert!(fact.bytes().all(|b| b.is_ascii_graphic()));
        }
    }
}
