use super::testing::Authority;
use super::*;

#[test]
fn options_that_cannot_be_used_say_what_is_wrong() {
    let authority = Authority::new();
    let identity = authority.identity("broker");
    let other = authority.identity("broker");
    let cases = [
        (
            Tls::new().ca_pem("nothing"),
            "the given PEM text holds no PEM certificate",
        ),
        (
            Tls::new().ca_file("/nowhere/ca.pem"),
            "file /nowhere/ca.pem cannot be read: ",
        ),
        (
            Tls::new().server_name("broker:10911"),
            "\"broker:10911\" is no server name; write a host name or an IP address without a port",
        ),
        (
            Tls::new().client_certificate_pem(identity.certificate.as_str(), "nothing"),
            "the private key of the given PEM text: it holds no PEM private key, or an encrypted one, which",
        ),
        (
            Tls::new().client_certificate_pem(identity.certificate.as_str(), other.key.as_str()),
            "the client certificate of the given PEM text and its key: ",
        ),
    ];
    for (tls, text) in cases {
        let error = tls.connector().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let expected = format!("TLS options cannot be used: {text}");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}

#[test]
fn keys_are_never_printed() {
    let identity = Authority::new().identity("broker");
    let tls = Tls::new().client_certificate_pem(identity.certificate.as_str(), identity.key.as_str());
    let line = identity.key.lines().nth(1).unwrap();
    let bytes = format!("{:?}", &identity.key.as_bytes()[30..40]);
    let bytes = bytes.trim_matches(['[', ']']);
    for printed in [format!("{tls:?}"), format!("{:?}", tls.connector().unwrap())] {
        assert!(!printed.contains(line), "{printed}");
        assert!(!printed.contains(bytes), "{printed}");
    }
}

#[test]
fn names_are_hosts_and_addresses_with_and_without_brackets() {
    for host in ["broker.example.org", "127.0.0.1", "::1", "[::1]", "localhost"] {
        assert!(name_of(host).is_some(), "{host}");
    }
    for host in ["", "a b", "[broker", "-"] {
        assert!(name_of(host).is_none(), "{host}");
    }
}
