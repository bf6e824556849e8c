use super::*;
use crate::ErrorKind;

fn serves(proxy: Socks5, address: &str) -> bool {
    proxy.proxy().unwrap().serves(address)
}

#[test]
fn a_proxy_serves_the_networks_it_is_for() {
    let everything = Socks5::new("127.0.0.1:1080");
    assert!(serves(everything.clone(), "broker.test:10911"));
    assert!(serves(everything.clone(), "[::1]:10911"));
    let some = everything
        .only("10.0.0.0/8")
        .only("fd00::/8")
        .only("192.168.1.7/32");
    for (address, expected) in [
        ("10.255.0.1:10911", true),
        ("11.0.0.1:10911", false),
        ("192.168.1.7:1", true),
        ("192.168.1.6:1", false),
        ("[fd12::1]:10911", true),
        ("[fe80::1]:10911", false),
        ("broker.test:10911", false),
        ("nonsense", false),
    ] {
        assert_eq!(serves(some.clone(), address), expected, "{address}");
    }
    for all in ["0.0.0.0/0", "::/0"] {
        let proxy = Socks5::new("127.0.0.1:1080").only(all);
        assert_eq!(serves(proxy.clone(), "1.2.3.4:1"), all.contains('.'));
        assert_eq!(serves(proxy, "[2001:db8::1]:1"), all.contains("::"));
    }
}

#[test]
fn options_that_cannot_be_used_say_what_is_wrong() {
    let proxy = || Socks5::new("127.0.0.1:1080");
    let cases = [
        (Socks5::new("127.0.0.1"), "write host:port"),
        (Socks5::new(":1080"), "write host:port"),
        (Socks5::new("host:0"), "write host:port"),
        (proxy().only("10.0.0.0"), "\"10.0.0.0\" is no network"),
        (proxy().only("10.0.0.0/33"), "is no network"),
        (proxy().only("ten/8"), "is no network"),
        (proxy().user("", "x"), "the user must have 1 to 255 bytes"),
        (
            proxy().user("alice", "x".repeat(256)),
            "the password must have 1 to 255 bytes",
        ),
    ];
    for (proxy, text) in cases {
        let error = proxy.proxy().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(text), "{error}");
    }
}
