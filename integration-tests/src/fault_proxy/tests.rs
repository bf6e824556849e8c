use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// A server that answers each frame with one of the same opaque, marked as response, with the same body.
struct Echo {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

async fn echo() -> Echo {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                while let Ok(length) = socket.read_u32().await {
                    let mut frame = vec![0; usize::try_from(length).unwrap().min(1 << 20)];
                    if socket.read_exact(&mut frame).await.is_err() {
                        break;
                    }
                    let text = String::from_utf8_lossy(&frame).replace(r#""flag":0"#, r#""flag":1"#);
                    let _ = socket.write_u32(length).await;
                    let _ = socket.write_all(text.as_bytes()).await;
                }
            });
        }
    });
    Echo {
        address,
        _tasks: tasks,
    }
}

fn frame(code: i32, opaque: i32, body: &str) -> Vec<u8> {
    encode(&format!(r#"{{"code":{code},"opaque":{opaque},"flag":0}}"#), body)
}

fn answer(code: i32, opaque: i32, body: &str) -> Vec<u8> {
    encode(&format!(r#"{{"code":{code},"opaque":{opaque},"flag":1}}"#), body)
}

fn encode(header: &str, body: &str) -> Vec<u8> {
    let mut frame = u32::try_from(4 + header.len() + body.len())
        .unwrap()
        .to_be_bytes()
        .to_vec();
    frame.extend(u32::try_from(header.len()).unwrap().to_be_bytes());
    frame.extend(header.as_bytes());
    frame.extend(body.as_bytes());
    frame
}

struct Line {
    _server: Echo,
    proxy: FaultProxy,
    client: TcpStream,
}

async fn line() -> Line {
    let server = echo().await;
    let proxy = FaultProxy::start(server.address).await.unwrap();
    let client = TcpStream::connect(proxy.address()).await.unwrap();
    Line {
        _server: server,
        proxy,
        client,
    }
}

impl Line {
    async fn say(&mut self, frame: &[u8]) {
        self.client.write_all(frame).await.unwrap();
    }

    async fn hear(&mut self, expected: &[u8]) {
        let mut heard = vec![0; expected.len()];
        timeout(LIMIT, self.client.read_exact(&mut heard))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&heard), String::from_utf8_lossy(expected));
    }

    async fn hear_to_the_end(&mut self) -> io::Result<Vec<u8>> {
        let mut heard = Vec::new();
        timeout(LIMIT, self.client.read_to_end(&mut heard))
            .await
            .unwrap()?;
        Ok(heard)
    }
}

#[tokio::test]
async fn without_faults_frames_and_other_bytes_pass_unchanged() {
    let mut line = line().await;
    let big = "x".repeat(300_000);
    line.say(&frame(10, 1, "one")).await;
    line.say(&frame(10, 2, &big)).await;
    line.hear(&answer(10, 1, "one")).await;
    line.hear(&answer(10, 2, &big)).await;
    // Length 3 cannot be a frame; the echo takes it as three bytes all the same.
    line.say(&[0, 0, 0, 3, b'a', b'b', b'c']).await;
    line.client.shutdown().await.unwrap();
    assert_eq!(
        line.hear_to_the_end().await.unwrap(),
        [0, 0, 0, 3, b'a', b'b', b'c']
    );
    assert_eq!(line.proxy.connections(), 1);
}

#[tokio::test]
async fn a_cut_lets_exactly_the_given_bytes_pass() {
    let expected = answer(10, 1, "body");
    for after in 0..=expected.len() {
        let mut line = line().await;
        let rule = line.proxy.inject(
            Direction::ToClient,
            Fault::Cut {
                after: after as u64,
                how: Cut::Finish,
            },
        );
        line.say(&frame(10, 1, "body")).await;
        assert_eq!(line.hear_to_the_end().await.unwrap(), expected[..after]);
        assert_eq!(rule.hits(), 1);
    }
}

#[tokio::test]
async fn a_reset_is_an_error_at_the_client_and_not_an_end() {
    let mut line = line().await;
    line.proxy.inject(
        Direction::ToServer,
        Fault::Cut {
            after: 5,
            how: Cut::Reset,
        },
    );
    line.say(&frame(10, 1, "body")).await;
    assert_eq!(
        line.hear_to_the_end().await.unwrap_err().kind(),
        io::ErrorKind::ConnectionReset
    );
}

#[tokio::test]
async fn a_cut_that_is_used_up_spares_the_next_connection() {
    let mut line = line().await;
    line.proxy.inject_times(
        Direction::ToClient,
        Fault::Cut {
            after: 0,
            how: Cut::Finish,
        },
        1,
    );
    line.say(&frame(10, 1, "body")).await;
    assert!(line.hear_to_the_end().await.unwrap().is_empty());
    line.client = TcpStream::connect(line.proxy.address()).await.unwrap();
    line.say(&frame(10, 1, "body")).await;
    line.hear(&answer(10, 1, "body")).await;
}

#[tokio::test]
async fn a_flip_changes_one_byte_of_the_stream_wherever_frames_begin() {
    let both = [answer(10, 1, "first"), answer(10, 2, "second")].concat();
    for at in [0, 9, both.len() - 1] {
        let mut line = line().await;
        line.proxy.inject(
            Direction::ToClient,
            Fault::Flip {
                at: at as u64,
                mask: 0x20,
            },
        );
        line.say(&frame(10, 1, "first")).await;
        line.say(&frame(10, 2, "second")).await;
        let mut expected = both.clone();
        expected[at] ^= 0x20;
        line.hear(&expected).await;
    }
}

#[tokio::test]
async fn a_lie_about_the_length_concerns_its_frame_only() {
    let mut line = line().await;
    line.proxy.inject(
        Direction::ToClient,
        Fault::LieAboutLength {
            frame: 1,
            length: i32::MAX,
        },
    );
    for opaque in 0..3 {
        line.say(&frame(10, opaque, "body")).await;
    }
    let mut expected = [
        answer(10, 0, "body"),
        answer(10, 1, "body"),
        answer(10, 2, "body"),
    ];
    expected[1][..4].copy_from_slice(&i32::MAX.to_be_bytes());
    line.hear(&expected.concat()).await;
}

#[tokio::test]
async fn the_answer_to_one_kind_of_request_is_swallowed() {
    let mut line = line().await;
    let rule = line
        .proxy
        .inject(Direction::ToClient, Fault::DropAnswer { code: 34 });
    line.say(&frame(34, 1, "dropped")).await;
    line.say(&frame(10, 2, "passed")).await;
    line.hear(&answer(10, 2, "passed")).await;
    assert_eq!(rule.hits(), 1);
    line.proxy.heal();
    line.say(&frame(34, 3, "passed")).await;
    line.hear(&answer(34, 3, "passed")).await;
}

#[tokio::test]
async fn a_stalled_connection_goes_on_when_healed() {
    let mut line = line().await;
    let rule = line.proxy.inject(Direction::ToServer, Fault::Stall);
    line.say(&frame(10, 1, "body")).await;
    timeout(LIMIT, async {
        while rule.hits() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let mut nothing = [0];
    assert_eq!(
        line.client.try_read(&mut nothing).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    line.proxy.heal();
    line.hear(&answer(10, 1, "body")).await;
}

#[tokio::test]
async fn sliced_and_delayed_bytes_arrive_whole() {
    let mut line = line().await;
    for direction in [Direction::ToServer, Direction::ToClient] {
        line.proxy.inject(direction, Fault::Slice);
        line.proxy
            .inject(direction, Fault::Delay(Duration::from_millis(1)));
    }
    line.say(&frame(10, 1, "body")).await;
    line.hear(&answer(10, 1, "body")).await;
}

#[tokio::test]
async fn an_address_is_replaced_and_the_length_follows() {
    let mut line = line().await;
    let (from, to) = ("127.0.0.1:10911".parse().unwrap(), "127.0.0.1:9".parse().unwrap());
    let rule = line
        .proxy
        .inject(Direction::ToClient, Fault::Readdress { from, to });
    let body = r#"{0:"127.0.0.1:10911","other":"127.0.0.1:109112"}"#;
    line.say(&frame(105, 1, body)).await;
    line.proxy.heal();
    line.say(&frame(105, 2, "unconcerned")).await;
    let expected = answer(105, 1, r#"{0:"127.0.0.1:9","other":"127.0.0.1:109112"}"#);
    line.hear(&[expected, answer(105, 2, "unconcerned")].concat())
        .await;
    assert_eq!(rule.hits(), 1);
}
