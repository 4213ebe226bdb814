//! Subject tokens of AWS, from each source of credentials of the AWS SDKs.

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{account, called_as, sidecar_with};
use crate::support::google::{
    AWS_REGION, AWS_ROLE, Endpoint, Endpoints, Fault, Google, SubjectSource,
};

const VERIFICATION: &str = "Action=GetCallerIdentity&Version=2011-06-15";

fn file(google: &Google) -> Value {
    google.external_account(&Endpoints::default(), SubjectSource::Aws)
}

/// Returns the header names of the signed request in the last exchange.
fn signed_headers(google: &Google) -> Vec<String> {
    let exchange = google.requests(Endpoint::StsExchange).pop().unwrap();
    let subject = exchange.field("subject_token");
    let json = percent_decode_str(&subject).decode_utf8().unwrap();
    let request: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        request["url"],
        format!("https://sts.{AWS_REGION}.amazonaws.com?{VERIFICATION}")
    );
    let headers = request["headers"].as_array().unwrap().iter();
    headers
        .map(|header| header["key"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn keys_in_the_environment_take_precedence_over_the_instance() {
    let google = Google::start().await;
    let keys = google.aws_environment();
    let env = [
        ("AWS_ACCESS_KEY_ID", &*keys.id),
        ("AWS_SECRET_ACCESS_KEY", &*keys.secret),
        ("AWS_DEFAULT_REGION", AWS_REGION),
        (
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "/v2/credentials/x",
        ),
    ];
    let sidecar = sidecar_with(&google, &file(&google), &[], &env).await;
    assert_eq!(called_as(&sidecar).await, account(&google));
    assert_eq!(
        signed_headers(&google),
        [
            "Authorization",
            "host",
            "x-amz-date",
            "x-goog-cloud-target-resource"
        ]
    );
    assert_eq!(google.count(Endpoint::AwsMetadata), 0);
    assert_eq!(google.count(Endpoint::AwsContainer), 0);
}

#[tokio::test]
async fn an_instance_provides_keys_and_a_region_by_imdsv2() {
    let google = Google::start().await;
    let sidecar = sidecar_with(&google, &file(&google), &[], &[]).await;
    assert_eq!(called_as(&sidecar).await, account(&google));
    assert_eq!(
        signed_headers(&google),
        [
            "Authorization",
            "host",
            "x-amz-date",
            "x-amz-security-token",
            "x-goog-cloud-target-resource"
        ]
    );
    let sessions = google.requests(Endpoint::AwsSession);
    assert!(sessions.iter().all(|request| request.method == "PUT"
        && request.header("x-aws-ec2-metadata-token-ttl-seconds") == Some("300")));
    let asked = google.requests(Endpoint::AwsMetadata);
    assert!(
        asked
            .iter()
            .all(|request| request.header("x-aws-ec2-metadata-token").is_some())
    );
    let paths: Vec<_> = asked.iter().map(|request| &*request.path).collect();
    assert_eq!(
        paths,
        [
            "/latest/meta-data/placement/availability-zone",
            "/latest/meta-data/iam/security-credentials",
            &format!("/latest/meta-data/iam/security-credentials/{AWS_ROLE}"),
        ]
    );
}

#[tokio::test]
async fn keys_and_region_are_kept_until_the_keys_expire() {
    let google = Google::start().await;
    google.always(
        Endpoint::StsExchange,
        Fault::edit(|json| json["expires_in"] = 10.into()),
    );
    let file = super::without_account(file(&google));
    let sidecar = sidecar_with(&google, &file, &[], &[]).await;
    called_as(&sidecar).await;
    super::called_until(&sidecar, &google, Endpoint::StsExchange, 2).await;
    assert_eq!(google.count(Endpoint::AwsMetadata), 3);
}

#[tokio::test]
async fn an_ecs_or_fargate_task_uses_the_container_endpoint() {
    let google = Google::start().await;
    let authorization = google.aws_container_authorization();
    let rotated = google.text_file("authorization", &format!("{authorization}\n"));
    for (name, value) in [
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", &*authorization),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            rotated.to_str().unwrap(),
        ),
    ] {
        let env = [
            (
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                "/v2/credentials/x",
            ),
            ("AWS_REGION", AWS_REGION),
            (name, value),
        ];
        let sidecar = sidecar_with(&google, &file(&google), &[], &env).await;
        assert_eq!(called_as(&sidecar).await, account(&google), "{name}");
        let asked = google.requests(Endpoint::AwsContainer).pop().unwrap();
        assert_eq!(asked.path, "/v2/credentials/x");
        assert_eq!(asked.header("authorization"), Some(&*authorization));
    }
    assert_eq!(google.count(Endpoint::AwsMetadata), 0);
}

#[tokio::test]
async fn no_error_repeats_the_authorization_of_the_container() {
    let google = Google::start().await;
    let secret = "ba0384ab5521";
    let rotated = google.text_file("authorization", &format!("{secret}\n"));
    let fault = Fault::status(403, format!("bad token {secret}"));
    google.always(Endpoint::AwsContainer, fault);
    for (name, value) in [
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", secret),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            rotated.to_str().unwrap(),
        ),
    ] {
        let path = (
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "/v2/credentials/x",
        );
        let env = [path, ("AWS_REGION", AWS_REGION), (name, value)];
        let sidecar = sidecar_with(&google, &file(&google), &[], &env).await;
        let detail = super::detail(&super::call(&sidecar, super::API).await);
        assert!(detail.contains("bad token […]"), "{detail}");
    }
}

#[tokio::test]
async fn no_error_repeats_the_session_token_of_the_instance() {
    let google = Google::start().await;
    let secret = "AQAEAEmLhXk4";
    google.always(Endpoint::AwsSession, Fault::status(200, secret));
    let fault = Fault::status(401, format!("bad token {secret}"));
    google.always(Endpoint::AwsMetadata, fault);
    let sidecar = sidecar_with(&google, &file(&google), &[], &[]).await;
    let detail = super::detail(&super::call(&sidecar, super::API).await);
    assert!(detail.contains("bad token […]"), "{detail}");
}

#[tokio::test]
async fn the_container_endpoint_may_be_on_loopback() {
    let google = Google::start().await;
    let full = format!("{}/v2/credentials/x", google.base());
    let env = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*full),
        ("AWS_REGION", AWS_REGION),
    ];
    let sidecar = sidecar_with(&google, &file(&google), &[], &env).await;
    assert_eq!(called_as(&sidecar).await, account(&google));
    assert_eq!(google.count(Endpoint::AwsContainer), 1);
}

#[tokio::test]
async fn an_eks_pod_obtains_keys_by_web_identity() {
    let google = Google::start().await;
    let web_identity = google.web_identity_token(google.now(), 3600).unwrap();
    let token = google.text_file("web-identity", &web_identity);
    let role = format!("arn:aws:iam::123456789012:role/{AWS_ROLE}");
    let env = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_ROLE_ARN", &role),
        ("AWS_REGION", AWS_REGION),
    ];
    let sidecar = sidecar_with(&google, &file(&google), &[], &env).await;
    assert_eq!(called_as(&sidecar).await, account(&google));
    let assumed = google.only(Endpoint::AwsAssumeRole);
    assert_eq!(assumed.host, format!("sts.{AWS_REGION}.amazonaws.com"));
    assert_eq!(assumed.field("WebIdentityToken"), web_identity);
    assert_eq!(assumed.field("RoleSessionName"), "sidentity");
    assert_eq!(google.count(Endpoint::AwsMetadata), 0);
}

#[tokio::test]
async fn an_expired_web_identity_token_is_reported_in_the_words_of_aws() {
    let google = Google::start().await;
    let expired = google.web_identity_token(google.now() - std::time::Duration::from_secs(600), 60);
    let token = google.text_file("web-identity", &expired.unwrap());
    let role = format!("arn:aws:iam::123456789012:role/{AWS_ROLE}");
    let env = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_ROLE_ARN", &role),
        ("AWS_REGION", AWS_REGION),
    ];
    let sidecar = sidecar_with(&google, &file(&google), &[], &env).await;
    let detail = super::detail(&super::call(&sidecar, super::API).await);
    assert!(
        detail.contains("ExpiredTokenException: Token expired"),
        "{detail}"
    );
    assert!(detail.contains(&role), "{detail}");
    assert_eq!(google.count(Endpoint::StsExchange), 0);
}

#[tokio::test]
async fn no_error_repeats_the_web_identity_token() {
    let google = Google::start().await;
    let secret = "ba0384ab5521";
    let token = google.text_file("web-identity", secret);
    let xml = format!(
        "<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>bad token {secret}</Message></Error></ErrorResponse>"
    );
    google.always(Endpoint::AwsAssumeRole, Fault::status(400, xml));
    let env = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r"),
        ("AWS_REGION", AWS_REGION),
    ];
    let sidecar = sidecar_with(&google, &file(&google), &[], &env).await;
    let detail = super::detail(&super::call(&sidecar, super::API).await);
    let expected = "InvalidIdentityToken: bad token […]";
    assert!(detail.contains(expected), "{detail}");
}

#[tokio::test]
async fn expired_keys_sign_nothing_and_the_error_names_the_clock() {
    let google = Google::start().await;
    let past = |json: &mut Value| json["Expiration"] = "2020-08-11T07:35:49Z".into();
    google.always(Endpoint::AwsContainer, Fault::edit(past));
    let env = [
        (
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "/v2/credentials/x",
        ),
        ("AWS_REGION", AWS_REGION),
    ];
    let sidecar = sidecar_with(&google, &file(&google), &[], &env).await;
    let detail = super::detail(&super::call(&sidecar, super::API).await);
    assert!(detail.contains("the keys have expired"), "{detail}");
    assert!(detail.contains("clock"), "{detail}");
    assert_eq!(google.count(Endpoint::StsExchange), 0);
}

#[tokio::test]
async fn keys_that_google_rejects_are_fetched_again() {
    let google = Google::start().await;
    let rejected = Fault::oauth(
        "invalid_grant",
        "The security token included in the request is invalid.",
    );
    google.script(Endpoint::StsExchange, [rejected]);
    let sidecar = sidecar_with(&google, &file(&google), &[], &[("AWS_REGION", AWS_REGION)]).await;
    let detail = super::detail(&super::call(&sidecar, super::API).await);
    assert!(
        detail.contains("the subject token comes from AWS"),
        "{detail}"
    );
    google.heal();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while super::call(&sidecar, super::API).await.status() != 200 {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(google.count(Endpoint::AwsMetadata), 4);
}

#[tokio::test]
async fn metadata_urls_of_aws_elsewhere_are_a_configuration_error() {
    let google = Google::start().await;
    let mut file = file(&google);
    file["credential_source"]["url"] = format!("{}/latest/meta-data", google.base()).into();
    let path = google.file("credentials.json", &file);
    let args = ["check", "--credentials", path.to_str().unwrap()];
    let ran =
        crate::command::sidentity(args, [] as [(std::ffi::OsString, std::ffi::OsString); 0]).await;
    assert_eq!(ran.status, Some(64), "{ran:?}");
    assert!(ran.err.contains("credential_source.url"), "{ran:?}");
    assert!(ran.err.contains("169.254.169.254"), "{ran:?}");
}

/// AWS accepts no signature that is older than 15 minutes by its clock, and Google passes its refusal on.
#[tokio::test]
async fn a_signature_that_aws_refuses_for_its_time_is_blamed_on_the_clock() {
    let google = Google::start().await;
    let keys = google.aws_environment();
    let env = [
        ("AWS_ACCESS_KEY_ID", &*keys.id),
        ("AWS_SECRET_ACCESS_KEY", &*keys.secret),
        ("AWS_REGION", AWS_REGION),
    ];
    for (skew, which) in [(1_200, "20m behind"), (-1_200, "20m ahead of")] {
        google.skew(skew);
        let sidecar = sidecar_with(&google, &file(&google), &[], &env).await;
        let said = super::detail(&super::call(&sidecar, super::API).await);
        let hint = format!("this machine's clock is {which} the server's");
        assert!(said.contains(&hint), "{hint}: {said}");
    }
    // AWS STS refuses in its own words.
    let google = Google::start().await;
    let web_identity = google.web_identity_token(google.now(), 3600).unwrap();
    let path = google.text_file("pod-token", &web_identity);
    let role = format!("arn:aws:iam::123456789012:role/{AWS_ROLE}");
    let env = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", path.to_str().unwrap()),
        ("AWS_ROLE_ARN", &*role),
        ("AWS_REGION", AWS_REGION),
    ];
    let body = "<ErrorResponse><Error><Code>RequestExpired</Code><Message>Request has expired.</Message></Error>\
                </ErrorResponse>";
    google.skew(600);
    google.always(Endpoint::AwsAssumeRole, Fault::status(400, body));
    let sidecar = sidecar_with(&google, &file(&google), &[], &env).await;
    let said = super::detail(&super::call(&sidecar, super::API).await);
    assert!(said.contains("RequestExpired"), "{said}");
    assert!(
        said.contains("this machine's clock is 10m behind the server's"),
        "{said}"
    );
}
