use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use super::*;
use crate::tasks::Tasks;

/// A server that hands each connection to a function.
async fn server<F>(tasks: &Tasks, serve: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Arc<str>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let connections = tasks.child();
    tasks.spawn("test-server", |stop| async move {
        while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
            let served = serve(stream);
            connections.spawn("test-connection", |stop| async move {
                // A stop in the middle is fine.
                let _ = stop.run_until_cancelled(served).await;
            });
        }
    });
    address.into()
}

fn tasks() -> Tasks {
    Tasks::new(Handle::current())
}

#[tokio::test]
async fn a_silent_death_of_the_peer_is_noticed_by_the_kernel() {
    let tasks = tasks();
    let address = server(&tasks, |stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    for (limit, user_timeout, idle) in [
        (
            Duration::from_secs(8),
            Some(Duration::from_secs(8)),
            Some(Duration::from_secs(4)),
        ),
        (Duration::ZERO, None, None),
    ] {
        let dialer = Dialer::new(DialOptions {
            tcp_user_timeout: limit,
            ..DialOptions::default()
        });
        let stream = match dialer.dial(&address, &Progress::default()).await.unwrap() {
            Stream::Plain(stream) => stream,
            #[cfg(feature = "tls")]
            Stream::Tls(_) => panic!("encrypted"),
        };
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert_eq!(socket.keepalive().unwrap(), idle.is_some());
        #[cfg(target_os = "linux")]
        {
            assert_eq!(socket.tcp_user_timeout().unwrap(), user_timeout);
            if let Some(idle) = idle {
                assert_eq!(socket.tcp_keepalive_time().unwrap(), idle);
            }
        }
    }
    tasks.stop(Duration::from_secs(5)).await.unwrap();
}

/// A proxy that answers as it is told, and echoes what comes after that.
async fn socks_server(tasks: &Tasks, script: &'static [(&'static [u8], &'static [u8])]) -> Arc<str> {
    server(tasks, move |mut stream| async move {
        for (asked, answer) in script {
            let mut got = vec![0; asked.len()];
            if stream.read_exact(&mut got).await.is_err() || got != *asked {
                return;
            }
            stream.write_all(answer).await.unwrap();
        }
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    })
    .await
}

async fn through(proxy: crate::Socks5, address: &str) -> Result<TcpStream> {
    let dialer = Dialer::new(DialOptions {
        proxies: vec![proxy.proxy().unwrap()],
        connect_timeout: Duration::from_millis(300),
        ..DialOptions::default()
    });
    match dialer.dial(&address.into(), &Progress::default()).await? {
        Stream::Plain(stream) => Ok(stream),
        #[cfg(feature = "tls")]
        Stream::Tls(_) => panic!("encrypted"),
    }
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_address_and_the_stream_behind_it_is_clean() {
    let tasks = tasks();
    let by_name = socks_server(
        &tasks,
        &[
            (&[5, 1, 0], &[5, 0]),
            (
                b"\x05\x01\x00\x03\x0bbroker.test\x2a\x9f",
                // Bound to a name: the proxy may say so.
                b"\x05\x00\x00\x03\x02ab\x00\x50",
            ),
        ],
    )
    .await;
    let mut stream = through(crate::Socks5::new(&*by_name), "broker.test:10911")
        .await
        .unwrap();
    stream.write_all(b"frame").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"frame");

    let with_user = socks_server(
        &tasks,
        &[
            (&[5, 1, 2], &[5, 2]),
            (b"\x01\x05alice\x06sesame", &[1, 0]),
            (
                &[
                    5, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x2a, 0x9f,
                ],
                &[5, 0, 0, 1, 127, 0, 0, 1, 0, 80],
            ),
        ],
    )
    .await;
    let proxy = crate::Socks5::new(&*with_user)
        .user("alice", "sesame")
        .only("::/0");
    through(proxy, "[::1]:10911").await.unwrap();
    tasks.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_proxy_that_refuses_or_stalls_or_is_none_is_an_error_that_says_so() {
    type Script = &'static [(&'static [u8], &'static [u8])];
    let tasks = tasks();
    let asked: &[u8] = &[5, 1, 0, 1, 10, 0, 0, 1, 0x2a, 0x9f];
    let asked: &'static [u8] = Box::leak(asked.to_vec().into_boxed_slice());
    let refused: Script = Box::leak(Box::new([
        (&[5, 1, 0][..], &[5, 0][..]),
        (asked, &[5, 2, 0, 1][..]),
    ]));
    let stalls: Script = &[(&[5, 1, 0], &[5])];
    let stalling = socks_server(&tasks, stalls).await;
    let error = through(crate::Socks5::new(&*stalling), "10.0.0.1:10911")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert_eq!(
        error.to_string(),
        format!(
            "no connection to 10.0.0.1:10911 through the SOCKS5 proxy {stalling} in 300 ms; are both addresses right \
             and both servers running?"
        )
    );
    let cases: [(Script, bool, &str); 5] = [
        (refused, false, "the proxy's rules do not allow this connection"),
        (
            &[(&[5, 1, 0], &[5, 0xff])],
            false,
            "the proxy asks for a user and password",
        ),
        (
            &[(&[5, 1, 2], &[5, 0xff])],
            true,
            "the proxy does not take a user and password",
        ),
        (
            &[(&[5, 1, 2], &[5, 2]), (b"\x01\x05alice\x06sesame", &[1, 1])],
            true,
            "the proxy does not accept this user and password",
        ),
        (&[(&[5, 1, 0], b"HTTP/1.1 400")], false, "this is no SOCKS5 proxy"),
    ];
    for (script, user, text) in cases {
        let address = socks_server(&tasks, script).await;
        let mut proxy = crate::Socks5::new(&*address);
        if user {
            proxy = proxy.user("alice", "sesame");
        }
        let error = through(proxy, "10.0.0.1:10911").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect);
        let expected = format!("cannot connect to 10.0.0.1:10911 through the SOCKS5 proxy {address}: {text}");
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(!format!("{error:?}").contains("sesame"));
    }
    tasks.stop(Duration::from_secs(5)).await.unwrap();
}

#[cfg(feature = "tls")]
mod secure {
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::Tls;
    use crate::transport::tls::failure;
    use crate::transport::tls::testing::Authority;

    async fn echo(tasks: &Tasks, acceptor: TlsAcceptor) -> Arc<str> {
        server(tasks, move |stream| {
            let accepting = acceptor.accept(stream);
            async move {
                let Ok(mut stream) = accepting.await else {
                    return;
                };
                let mut buffer = [0; 64];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..count]).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    async fn dial(tls: Tls, address: &Arc<str>) -> Result<Box<tokio_rustls::client::TlsStream<TcpStream>>> {
        let dialer = Dialer::new(DialOptions {
            broker_tls: Some(tls.connector().unwrap()),
            connect_timeout: Duration::from_millis(500),
            ..DialOptions::default()
        });
        match dialer.dial(address, &Progress::default()).await? {
            Stream::Tls(stream) => Ok(stream),
            Stream::Plain(_) => panic!("not encrypted"),
        }
    }

    async fn speaks(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) -> io::Result<()> {
        stream.write_all(b"frame").await?;
        stream.flush().await?;
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).await?;
        assert_eq!(&echo, b"frame");
        Ok(())
    }

    #[tokio::test]
    async fn a_server_is_believed_for_its_authority_and_its_name() {
        let tasks = tasks();
        let authority = Authority::new();
        let by_address = echo(
            &tasks,
            Authority::acceptor(&authority.identity("127.0.0.1"), None),
        )
        .await;
        let trusting = Tls::new().ca_pem(authority.pem());
        speaks(dial(trusting.clone(), &by_address).await.unwrap())
            .await
            .unwrap();

        let named = echo(
            &tasks,
            Authority::acceptor(&authority.identity("broker.test"), None),
        )
        .await;
        let expecting = trusting.server_name("broker.test");
        speaks(dial(expecting, &named).await.unwrap()).await.unwrap();

        let anyone = Tls::new().danger_accept_any_certificate();
        speaks(dial(anyone, &named).await.unwrap()).await.unwrap();
        tasks.stop(Duration::from_secs(5)).await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_cannot_be_believed_gets_no_byte_of_ours() {
        let tasks = tasks();
        let authority = Authority::new();
        let good = authority.identity("127.0.0.1");
        let trusting = Tls::new().ca_pem(authority.pem());
        let cases = [
            (authority.expired("127.0.0.1"), trusting.clone(), "has run out"),
            (
                authority.identity("other.test"),
                trusting.clone(),
                "as server_name",
            ),
            (good, Tls::new(), "by ca_file or ca_pem"),
            (
                Authority::new().identity("127.0.0.1"),
                trusting,
                "by ca_file or ca_pem",
            ),
        ];
        for (identity, tls, remedy) in cases {
            let address = echo(&tasks, Authority::acceptor(&identity, None)).await;
            let error = dial(tls, &address).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Tls);
            let text = error.to_string();
            assert!(text.starts_with(&format!("TLS to {address}: ")), "{text}");
            assert!(text.contains(remedy), "{text}");
        }
        tasks.stop(Duration::from_secs(5)).await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_does_not_speak_tls_gets_a_handshake_and_nothing_else() {
        let tasks = tasks();
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        // Reads all that comes, says this, and then closes or stalls.
        type Answer = (&'static [u8], bool, &'static str);
        let cases: [Answer; 3] = [
            (
                b"\x00\x00\x00\x10not a handshake",
                true,
                "does this port speak TLS",
            ),
            (b"", true, "does this port speak TLS"),
            (b"", false, "the handshake did not end in 500 ms"),
        ];
        for (answer, closes, text) in cases {
            let record = Arc::clone(&record);
            let address = server(&tasks, move |mut stream| {
                let record = Arc::clone(&record);
                async move {
                    let mut buffer = [0; 4096];
                    let count = stream.read(&mut buffer).await.unwrap();
                    record.lock().unwrap().push(buffer[..count].to_vec());
                    stream.write_all(answer).await.unwrap();
                    if closes {
                        return;
                    }
                    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                        record.lock().unwrap().push(buffer[..count].to_vec());
                    }
                }
            })
            .await;
            let error = dial(Tls::new(), &address).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
        for bytes in seen.lock().unwrap().iter() {
            // Records of a handshake or an alert.
            assert!([0x15, 0x16].contains(&bytes[0]), "{bytes:?}");
        }
        tasks.stop(Duration::from_secs(5)).await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_asks_for_a_client_certificate_gets_ours() {
        let tasks = tasks();
        let authority = Authority::new();
        let server = authority.identity("127.0.0.1");
        let address = echo(&tasks, Authority::acceptor(&server, Some(&authority))).await;
        let trusting = Tls::new().ca_pem(authority.pem());
        let client = authority.identity("client.test");
        let known = trusting
            .clone()
            .client_certificate_pem(client.certificate, client.key);
        speaks(dial(known, &address).await.unwrap()).await.unwrap();
        // With TLS 1.3 the handshake ends for the client before the server has looked at its certificate.
        let nobody = match dial(trusting, &address).await {
            Ok(stream) => failure(&address, speaks(stream).await.unwrap_err()),
            Err(error) => error,
        };
        assert_eq!(nobody.kind(), ErrorKind::Tls);
        tasks.stop(Duration::from_secs(5)).await.unwrap();
    }

    #[tokio::test]
    async fn name_servers_and_brokers_are_dialed_each_their_way() {
        let tasks = tasks();
        let authority = Authority::new();
        let acceptor = Authority::acceptor(&authority.identity("127.0.0.1"), None);
        let secure = echo(&tasks, acceptor).await;
        let plain = server(&tasks, |stream| async move {
            let _open = stream;
            std::future::pending::<()>().await;
        })
        .await;
        let dialer = Dialer::new(DialOptions {
            name_server_tls: Some(Tls::new().ca_pem(authority.pem()).connector().unwrap()),
            ..DialOptions::default()
        });
        dialer.set_name_servers(&[Arc::clone(&secure)]);
        assert!(matches!(
            dialer.dial(&secure, &Progress::default()).await.unwrap(),
            Stream::Tls(_)
        ));
        assert!(matches!(
            dialer.dial(&plain, &Progress::default()).await.unwrap(),
            Stream::Plain(_)
        ));
        tasks.stop(Duration::from_secs(5)).await.unwrap();
    }
}
