//! Emulated AWS endpoints: instance metadata (IMDSv2), container credentials of ECS, and `AssumeRoleWithWebIdentity` of
//! STS.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::error_response::{ErrorResponse, escaped, response, success};
use super::form::Form;
use super::jwt::Jwt;
use super::oauth::HOUR;
use super::users::random;
use super::{Endpoint, Google};

/// The role of the instance and of the container.
pub const ROLE: &str = "example-role";

/// The account that owns the role.
pub const ACCOUNT: &str = "123456789012";

/// The region of the environment and of the availability zone.
pub const REGION: &str = "us-east-1";

/// The issuer of the tokens that a Kubernetes pod uses for its role.
pub(super) const CLUSTER: &str = "https://oidc.eks.us-east-1.amazonaws.com/id/EXAMPLE";

const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const SESSION: &str = "x-aws-ec2-metadata-token";

/// Keys of an AWS principal.
#[derive(Clone)]
pub struct AwsKeys {
    /// `AWS_ACCESS_KEY_ID`.
    pub id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret: String,
    /// `AWS_SESSION_TOKEN`, for the temporary keys of a role.
    pub session: Option<String>,
    /// The ARN that `GetCallerIdentity` returns.
    pub arn: String,
}

/// All keys, and the secrets of the metadata endpoints.
pub(super) struct AwsEmulator {
    pub(super) environment: AwsKeys,
    instance: AwsKeys,
    pub(super) container: AwsKeys,
    web_identity: AwsKeys,
    session: String,
    pub(super) container_authorization: String,
}

#[derive(Deserialize)]
struct WebIdentity {
    iss: String,
    aud: String,
    exp: u64,
}

// === impl AwsEmulator ===

impl AwsEmulator {
    pub(super) fn new() -> Result<Self, ErrorResponse> {
        let role = |name: &str| {
            AwsKeys::new(
                "ASIA",
                Some(format!("session-{}", random()?)),
                format!("arn:aws:sts::{ACCOUNT}:assumed-role/{ROLE}/{name}"),
            )
        };
        Ok(Self {
            environment: AwsKeys::new(
                "AKIA",
                None,
                format!("arn:aws:iam::{ACCOUNT}:user/example"),
            )?,
            instance: role("i-0123456789abcdef0")?,
            container: role("container")?,
            web_identity: role("web-identity")?,
            session: random()?,
            container_authorization: random()?,
        })
    }

    pub(super) fn keys(&self, id: &str) -> Option<&AwsKeys> {
        [
            &self.environment,
            &self.instance,
            &self.container,
            &self.web_identity,
        ]
        .into_iter()
        .find(|keys| keys.id == id)
    }
}

impl fmt::Debug for AwsKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, arn, .. } = self;
        f.debug_struct("AwsKeys")
            .field("id", id)
            .field("arn", arn)
            .finish_non_exhaustive()
    }
}

// === impl AwsKeys ===

impl AwsKeys {
    fn new(prefix: &str, session: Option<String>, arn: String) -> Result<Self, ErrorResponse> {
        let random_id = random()?.to_ascii_uppercase();
        Ok(Self {
            id: format!("{prefix}{}", random_id.get(..16).unwrap_or_default()),
            secret: random()?,
            session,
            arn,
        })
    }
}

/// Answers a request to an AWS endpoint.
pub(super) fn call(
    google: &Google,
    endpoint: Endpoint,
    request: &Request<Bytes>,
    now: u64,
) -> Result<Response<Bytes>, ErrorResponse> {
    let aws = google.aws();
    match endpoint {
        Endpoint::AwsSession => session(aws, request),
        Endpoint::AwsMetadata => metadata(aws, request, now),
        Endpoint::AwsContainer => container(aws, request, now),
        _ => assume_role(google, request, now),
    }
}

fn session(aws: &AwsEmulator, request: &Request<Bytes>) -> Result<Response<Bytes>, ErrorResponse> {
    if request.method() != Method::PUT {
        return Err(ErrorResponse::text(StatusCode::METHOD_NOT_ALLOWED, "PUT"));
    }
    let seconds = header(request, TTL).and_then(|text| text.parse::<u32>().ok());
    if !seconds.is_some_and(|seconds| (1..=21_600).contains(&seconds)) {
        return Err(ErrorResponse::text(StatusCode::BAD_REQUEST, TTL));
    }
    if request.headers().contains_key("x-forwarded-for") {
        return Err(ErrorResponse::text(
            StatusCode::FORBIDDEN,
            "X-Forwarded-For",
        ));
    }
    Ok(text(&aws.session))
}

fn metadata(
    aws: &AwsEmulator,
    request: &Request<Bytes>,
    now: u64,
) -> Result<Response<Bytes>, ErrorResponse> {
    if request.method() != Method::GET {
        return Err(ErrorResponse::text(StatusCode::METHOD_NOT_ALLOWED, "GET"));
    }
    if header(request, SESSION) != Some(&aws.session) {
        return Err(ErrorResponse::text(
            StatusCode::UNAUTHORIZED,
            "Unauthorized",
        ));
    }
    let path = request.uri().path().strip_prefix("/latest/meta-data/");
    match path.unwrap_or_default() {
        "placement/availability-zone" => Ok(text(&format!("{REGION}a"))),
        "placement/region" => Ok(text(REGION)),
        "iam/security-credentials" | "iam/security-credentials/" => Ok(text(ROLE)),
        path if path.strip_prefix("iam/security-credentials/") == Some(ROLE) => {
            let keys = &aws.instance;
            Ok(success(&json!({
                "Code": "Success",
                "LastUpdated": time(now),
                "Type": "AWS-HMAC",
                "AccessKeyId": keys.id,
                "SecretAccessKey": keys.secret,
                "Token": keys.session,
                "Expiration": time(now + HOUR),
            })))
        }
        _ => Err(ErrorResponse::text(StatusCode::NOT_FOUND, "Not Found")),
    }
}

fn container(
    aws: &AwsEmulator,
    request: &Request<Bytes>,
    now: u64,
) -> Result<Response<Bytes>, ErrorResponse> {
    if request.method() != Method::GET {
        return Err(ErrorResponse::text(StatusCode::METHOD_NOT_ALLOWED, "GET"));
    }
    let authorization = header(request, AUTHORIZATION.as_str());
    // Requests of Pod Identity always have this header. Requests to the relative URI of ECS have none.
    let is_pod = request.uri().path() == "/v1/credentials";
    let is_right = authorization.map_or(!is_pod, |value| value == aws.container_authorization);
    if !is_right {
        let why = "Forbidden: the emulator accepts the token that aws_container_authorization of the crate returns";
        return Err(ErrorResponse::text(StatusCode::FORBIDDEN, why));
    }
    let keys = &aws.container;
    Ok(success(&json!({
        "RoleArn": format!("arn:aws:iam::{ACCOUNT}:role/{ROLE}"),
        "AccessKeyId": keys.id,
        "SecretAccessKey": keys.secret,
        "Token": keys.session,
        "Expiration": time(now + HOUR),
    })))
}

/// AWS also accepts the parameters in the query, and answers in JSON if the client accepts it.
fn assume_role(
    google: &Google,
    request: &Request<Bytes>,
    now: u64,
) -> Result<Response<Bytes>, ErrorResponse> {
    let fields = [
        "Action",
        "Version",
        "RoleArn",
        "RoleSessionName",
        "WebIdentityToken",
        "DurationSeconds",
    ];
    let invalid = |code: &str, why: &str| ErrorResponse::aws(StatusCode::BAD_REQUEST, code, why);
    let form = match request.uri().query() {
        Some(query) if request.method() == Method::GET => {
            Form::parse(query, &fields).map_err(|why| invalid("ValidationError", &why))?
        }
        _ => Form::read(request, &fields)?,
    };
    let missing = |name: &str| invalid("ValidationError", &format!("{name} is missing or wrong"));
    let field = |name: &str| form.field(name).ok_or_else(|| missing(name));
    if field("Action")? != "AssumeRoleWithWebIdentity" {
        return Err(missing("Action"));
    }
    if field("Version")? != "2011-06-15" {
        return Err(missing("Version"));
    }
    if field("RoleArn")? != format!("arn:aws:iam::{ACCOUNT}:role/{ROLE}") {
        let why = format!(
            "Not authorized to perform sts:AssumeRoleWithWebIdentity (the emulator has the role arn:aws:iam::{ACCOUNT}:role/{ROLE})"
        );
        return Err(ErrorResponse::aws(
            StatusCode::FORBIDDEN,
            "AccessDenied",
            &why,
        ));
    }
    let name = field("RoleSessionName")?;
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    if !(2..=64).contains(&name.len()) || !name.bytes().all(valid) {
        return Err(missing("RoleSessionName"));
    }
    let wrong_token = |why: &str| invalid("InvalidIdentityToken", why);
    let jwt = Jwt::parse(field("WebIdentityToken")?).map_err(|why| wrong_token(&why))?;
    let claims: WebIdentity = jwt.claims().map_err(|why| wrong_token(&why))?;
    if claims.iss != CLUSTER || claims.aud != "sts.amazonaws.com" || !google.is_of_idp(&jwt) {
        return Err(wrong_token(
            "issuer, audience or signature is wrong: the emulator accepts the tokens that web_identity_token of the crate makes",
        ));
    }
    if claims.exp <= now {
        return Err(invalid("ExpiredTokenException", "Token expired"));
    }
    let keys = &google.aws().web_identity;
    let session = keys.session.as_deref().unwrap_or_default();
    if header(request, ACCEPT.as_str()).is_some_and(|accept| accept.contains("application/json")) {
        return Ok(success(&json!({"AssumeRoleWithWebIdentityResponse": {
            "AssumeRoleWithWebIdentityResult": {"Credentials": {
                "AccessKeyId": keys.id,
                "SecretAccessKey": keys.secret,
                "SessionToken": session,
                "Expiration": now + HOUR,
            }},
        }})));
    }
    let body = format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
         <SessionToken>{}</SessionToken><Expiration>{}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
         </AssumeRoleWithWebIdentityResponse>",
        escaped(&keys.id),
        escaped(&keys.secret),
        escaped(session),
        time(now + HOUR),
    );
    Ok(response(StatusCode::OK, "text/xml", body))
}

fn header<'a>(request: &'a Request<Bytes>, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

fn text(text: &str) -> Response<Bytes> {
    response(StatusCode::OK, "text/plain", text.to_owned())
}

fn time(seconds: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}
