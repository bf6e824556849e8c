use super::*;
use crate::ErrorKind;
use crate::protocol::Fields;
use crate::protocol::frame::VERSION;
use crate::transport::{Sign, Unsigned};

fn signed<'a>(
    credentials: &Credentials,
    fields: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: &str,
) -> (Fields, i32) {
    let mut request = Unsigned {
        fields: Fields::from_iter(fields),
        body: body.as_bytes(),
        version: VERSION,
    };
    Signer::new(credentials.clone()).sign(&mut request);
    (request.fields, request.version)
}

/// Made by `AclClientRPCHook` of the Java client, 4.9.7 and 5.5.0 alike.
#[test]
fn signatures_are_those_of_the_java_client() {
    type Vector<'a> = (&'a Credentials, &'a [(&'a str, &'a str)], &'a str, &'a str);
    let plain = Credentials::new("rocketmq2", "12345678");
    let temporary = Credentials::new("orders-svc", "s3crét kéy").security_token("token-€");
    let large = "0123456789".repeat(1000);
    let send = [
        ("a", "orders-svc"),
        ("b", "orders"),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "1"),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", "TAGS\u{1}vip\u{2}"),
        ("j", "0"),
        ("k", "false"),
        ("m", "false"),
    ];
    let mixed_case = [
        ("b", "1"),
        ("B", "2"),
        ("_x", "3"),
        ("Z", "4"),
        ("bname", "5"),
        ("ns", "shop"),
        ("nsd", "true"),
    ];
    // In the order of UTF-16 units a surrogate comes before U+E000.
    let beyond_ascii = [("\u{e000}", "private"), ("\u{1f600}", "smile"), ("z", "ascii")];
    let vectors: [Vector<'_>; 7] = [
        (
            &plain,
            &[("topic", "TopicTest")],
            "",
            "GeeGoP9mRvDhoVp4PD5omX0prgE=",
        ),
        (&plain, &send, "42 apples", "XkAOhWnnozndDo5rXtbFhKPcz6E="),
        (
            &temporary,
            &[],
            "{\"clientID\":\"ä\"}",
            "YFZlsCVvjx6Wh5uVsuU0ZPHrmGk=",
        ),
        (&plain, &mixed_case, "", "M9Cq2OyYyBoV3TRJaslID3LNreQ="),
        (
            &plain,
            &[("subscription", ""), ("topic", "")],
            "",
            "Ou1T58RIcyZWaTIwzkhJZWn/Zvs=",
        ),
        (&plain, &beyond_ascii, "", "HqotebWBcNhw5a1fjFrkfulL+7k="),
        (&plain, &[("b", "orders")], &large, "Ip5H7u275R0owxXRxdAscglaaQ8="),
    ];
    for (credentials, fields, body, expected) in vectors {
        let (signed, version) = signed(credentials, fields.iter().copied(), body);
        assert_eq!(signed.get("Signature"), Some(expected), "{fields:?}");
        assert_eq!(signed.get("AccessKey"), Some(credentials.access_key()));
        assert_eq!(version, VERSION);
    }
    let credentials = Credentials::new("any", "key");
    assert_eq!(
        credentials.signature("The quick brown fox ü".as_bytes()),
        "2MMCxElExyMVFBmTNb0OINqHA8M="
    );
}

#[test]
fn the_token_of_temporary_credentials_travels_and_nothing_else_is_added() {
    let credentials = Credentials::new("orders-svc", "12345678").security_token("token");
    let (fields, _) = signed(&credentials, [("topic", "orders")], "");
    let keys: Vec<_> = fields.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["topic", "AccessKey", "SecurityToken", "Signature"]);
    assert_eq!(fields.get("SecurityToken"), Some("token"));
}

/// Brokers of 4.9 never sign the mark of such a query, those of 5.x do not for clients up to 4.9.3 (ordinal 399): so
/// leaving it out and announcing that version suits both.
#[test]
fn the_mark_of_a_query_by_unique_key_is_not_signed_and_an_old_version_announced() {
    let credentials = Credentials::new("rocketmq2", "12345678");
    let query = [("topic", "orders"), ("key", "AC")];
    let (without, version) = signed(&credentials, query, "");
    assert_eq!(version, VERSION);
    let marked = [query[0], ("_UNIQUE_KEY_QUERY", "true"), query[1]];
    let (with, version) = signed(&credentials, marked, "");
    assert_eq!(with.get("Signature"), without.get("Signature"));
    assert_eq!(with.get("_UNIQUE_KEY_QUERY"), Some("true"));
    assert_eq!(version, 399);
}

#[test]
fn of_two_fields_with_one_key_the_one_that_a_java_server_keeps_is_signed() {
    let credentials = Credentials::new("rocketmq2", "12345678");
    let (twice, _) = signed(&credentials, [("topic", "a"), ("topic", "b")], "");
    let (once, _) = signed(&credentials, [("topic", "b")], "");
    assert_eq!(twice.get("Signature"), once.get("Signature"));
}

#[test]
fn secrets_are_never_printed() {
    let credentials = Credentials::new("orders-svc", "sesame").security_token("open");
    let (fields, _) = signed(&credentials, [], "");
    let signature = fields.get("Signature").unwrap().to_owned();
    let provider = RotatingCredentials::new(credentials.clone());
    let printed = format!(
        "{credentials:?} {credentials} {:?} {fields:?} {provider:?} {:?}",
        Signer::new(credentials.clone()),
        IssuedCredentials::new(credentials.clone()),
    );
    assert!(printed.contains("orders-svc"), "{printed}");
    for secret in ["sesame", "open", &signature] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[test]
fn credentials_that_cannot_be_used_are_named_at_once() {
    let error = Credentials::new(" ", "").security_token("").check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(
        error.to_string(),
        "credentials cannot be used: the access key is blank; the secret key is blank; the security token is blank; \
         leave it away where there is none"
    );
    assert!(Credentials::new("a", "b").check().is_ok());
}
