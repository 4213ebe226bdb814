use serde_json::{Value, json};

use super::*;
use crate::credentials::tests::{private_key, verify};

fn json_of(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn a_jwt_has_kid_claims_and_a_valid_signature() {
    let key = SigningKey::from_pem(&private_key()).unwrap();
    let claims = json!({"iss": "a@p.iam.gserviceaccount.com", "exp": 3600});
    for (kid, header) in [
        (
            Some("k1"),
            json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}),
        ),
        (None, json!({"alg": "RS256", "typ": "JWT"})),
    ] {
        let jwt = sign(&key, kid, &claims).unwrap();
        let parts: Vec<&str> = jwt.split('.').collect();
        assert_eq!(parts.len(), 3);
        assert_eq!(json_of(parts[0]), header);
        assert_eq!(json_of(parts[1]), claims);
        let (message, signature) = jwt.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(verify(message.as_bytes(), &signature));
    }
}
