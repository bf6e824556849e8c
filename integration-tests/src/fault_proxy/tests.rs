use serde_json::Value;
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

/// Headers and bodies: an edited header may have its fields in another order.
fn frames(mut bytes: &[u8]) -> Vec<(Value, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((start, rest)) = bytes.split_first_chunk::<8>() {
        let [length, header] =
            [&start[..4], &start[4..]].map(|field| u32::from_be_bytes(field.try_into().unwrap()) as usize);
        let (frame, next) = rest.split_at(length - 4);
        let (header, body) = frame.split_at(header);
        frames.push((serde_json::from_slice(header).unwrap(), body.to_vec()));
        bytes = next;
    }
    frames
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

    /// So many frames, taken apart.
    async fn frames(&mut self, count: usize) -> Vec<(Value, Vec<u8>)> {
        let mut heard = Vec::new();
        for _ in 0..count {
            let mut frame = vec![0; 4];
            self.client.read_exact(&mut frame).await.unwrap();
            let length = u32::from_be_bytes(*frame.first_chunk().unwrap());
            frame.resize(4 + usize::try_from(length).unwrap(), 0);
            self.client.read_exact(&mut frame[4..]).await.unwrap();
            heard.extend(frames(&frame));
        }
        heard
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

#[tokio::test]
async fn an_answer_is_repeated_at_once_or_later() {
    let mut line = line().await;
    line.proxy
        .inject(Direction::ToClient, Fault::Repeat { code: 10, after: 0 });
    line.proxy
        .inject_times(Direction::ToClient, Fault::Repeat { code: 11, after: 2 }, 1);
    line.say(&frame(10, 1, "twice")).await;
    line.hear(&answer(10, 1, "twice").repeat(2)).await;
    for opaque in 2..5 {
        line.say(&frame(11, opaque, "later")).await;
    }
    line.hear(&[2, 3, 4, 2].map(|opaque| answer(11, opaque, "later")).concat())
        .await;
}

#[tokio::test]
async fn an_answer_gets_another_code_or_a_copy_for_somebody_else() {
    let mut line = line().await;
    line.proxy
        .inject(Direction::ToClient, Fault::Recode { code: 10, to: 1500 });
    line.say(&frame(10, 1, "recoded")).await;
    line.say(&frame(11, 2, "as it is")).await;
    let expected = [answer(1500, 1, "recoded"), answer(11, 2, "as it is")].concat();
    assert_eq!(line.frames(2).await, frames(&expected));
    line.proxy.heal();
    line.proxy.inject(
        Direction::ToClient,
        Fault::Misaddress {
            code: 10,
            mask: 0x4000_0000,
        },
    );
    line.say(&frame(10, 3, "copied")).await;
    let expected = [answer(10, 0x4000_0003, "copied"), answer(10, 3, "copied")].concat();
    assert_eq!(line.frames(2).await, frames(&expected));
}

#[test]
fn binary_headers_are_edited_too() {
    let header: Vec<u8> = [
        &[0, 10, 12, 1, 217][..],
        &7_i32.to_be_bytes()[..],
        &1_i32.to_be_bytes(),
        &[0; 8],
    ]
    .concat();
    let mut frame = u32::try_from(4 + header.len() + 4)
        .unwrap()
        .to_be_bytes()
        .to_vec();
    frame.extend((1_u32 << 24 | u32::try_from(header.len()).unwrap()).to_be_bytes());
    frame.extend(&header);
    frame.extend(b"body");
    let edited = edit::with_code(
        &edit::with_opaque(&frame, |opaque| opaque ^ 0x0101).unwrap(),
        1500,
    )
    .unwrap();
    let mut expected = frame.clone();
    expected[8..10].copy_from_slice(&1500_i16.to_be_bytes());
    expected[13..17].copy_from_slice(&0x0106_i32.to_be_bytes());
    assert_eq!(edited, expected);
    assert_eq!(edit::with_code(&frame, 100_000), None, "no room in the field");
    for end in 0..frame.len() - 4 {
        assert_eq!(edit::with_code(&frame[..end], 1), None, "{end} bytes");
    }
}

#[tokio::test]
async fn a_throttled_connection_takes_its_time() {
    let mut line = line().await;
    let started = tokio::time::Instant::now();
    line.proxy.inject(
        Direction::ToClient,
        Fault::Throttle {
            bytes_per_second: 50_000,
        },
    );
    let body = "x".repeat(10_000);
    line.say(&frame(10, 1, &body)).await;
    line.hear(&answer(10, 1, &body)).await;
    // It cannot be faster, however fast or slow the machine is.
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn several_brokers_are_each_behind_a_proxy_of_their_own() {
    let (name_server, a, b) = (echo().await, echo().await, echo().await);
    let path = FaultPath::start(name_server.address, &[a.address, b.address])
        .await
        .unwrap();
    let mut client = TcpStream::connect(path.name_server.address()).await.unwrap();
    let body = format!("{{0:\"{}\",1:\"{}\"}}", a.address, b.address);
    client.write_all(&frame(105, 1, &body)).await.unwrap();
    let expected = format!(
        "{{0:\"{}\",1:\"{}\"}}",
        path.broker.address(),
        path.others[0].address()
    );
    let expected = answer(105, 1, &expected);
    let mut heard = vec![0; expected.len()];
    timeout(LIMIT, client.read_exact(&mut heard))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(heard, expected);
    assert!(FaultPath::start(name_server.address, &[]).await.is_err());
}

#[tokio::test]
async fn a_cut_inside_a_frame_leaves_the_frames_before_it_alone() {
    let expected = answer(10, 2, "body");
    for after in 0..expected.len() + 2 {
        let mut line = line().await;
        let rule = line.proxy.inject(
            Direction::ToClient,
            Fault::CutIn {
                code: 10,
                after,
                how: Cut::Finish,
            },
        );
        line.say(&frame(34, 1, "before")).await;
        line.say(&frame(10, 2, "body")).await;
        line.hear(&answer(34, 1, "before")).await;
        if after < expected.len() {
            assert_eq!(line.hear_to_the_end().await.unwrap(), expected[..after]);
            assert_eq!(rule.hits(), 1);
        } else {
            line.hear(&expected).await;
            assert_eq!(rule.hits(), 0, "the frame is shorter");
        }
    }
}

#[tokio::test]
async fn a_flip_inside_a_frame_leaves_other_frames_alone() {
    let mut line = line().await;
    let mut flipped = answer(10, 2, "body");
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let rule = line.proxy.inject(
        Direction::ToClient,
        Fault::FlipIn {
            code: 10,
            at: last,
            mask: 1,
        },
    );
    line.say(&frame(34, 1, "before")).await;
    line.say(&frame(10, 2, "body")).await;
    line.hear(&[answer(34, 1, "before"), flipped].concat()).await;
    assert_eq!(rule.hits(), 1);
}

#[tokio::test]
async fn a_line_that_is_hung_up_ends_and_the_next_one_works() {
    for how in [Cut::Finish, Cut::Reset] {
        let mut line = line().await;
        line.say(&frame(10, 1, "body")).await;
        line.hear(&answer(10, 1, "body")).await;
        line.proxy.hang_up(how);
        let ended = line.hear_to_the_end().await;
        assert_eq!(ended.is_ok(), how == Cut::Finish, "{ended:?}");
        line.client = TcpStream::connect(line.proxy.address()).await.unwrap();
        line.say(&frame(10, 2, "body")).await;
        line.hear(&answer(10, 2, "body")).await;
    }
}
